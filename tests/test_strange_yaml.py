"""YAML from a stranger: what it stands for is counted before anything is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigmodel.config.saved import load_config
from bigmodel.config.yaml_limits import yaml_text
from bigmodel.errors import ConfigError

SOUND = ["a: 1\nb: [1, 2, {c: d}]\n", "a: &x [1, 2]\nb: *x\n", "a: &x 1\nb: {c: *x, d: *x}\n", ""]
BOMBS = {
    "aliases of aliases": "\n".join(
        ["l0: &l0 [1, 1]", *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9))]
    ),
    "an alias of itself": "a: &a [*a]",
    "too deep in flow": "[" * 60 + "]" * 60,
    "too deep in blocks": "\n".join(" " * n + "a:" for n in range(60)),
    "too many values": "a: [" + "1, " * 30_000 + "]",
    "too large": "# " + "x" * (1 << 20),
    "a Python object": "a: !!python/object/apply:os.system [true]",
}


@pytest.mark.parametrize("text", SOUND)
def test_sound_yaml_passes(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    yaml_text(file)


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml: (stands for|must not create|\d+ bytes)"):
        load_config(file)
