"""Files that a stranger might send: each is put into a copy of a sound run. `PAYLOAD` leaves a marker if it is run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from watch import TOKEN

STEP = "step-00000006"
Change = Callable[[Path, Path], object]  # the run's copy, and where the marker would be


@dataclass(frozen=True)
class Case:
    """One hostile thing: what it changes in the run, the command that meets it, and the exit codes that are right."""

    name: str
    change: Change
    verb: str
    words: tuple[str, ...]  # {run} is the copy
    codes: tuple[int, ...]


class Evil:
    """Unpickled, it would make the marker."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._marker} # {TOKEN}",)


def attacker_module(marker: Path) -> str:
    return (
        f"# {TOKEN}\nimport pathlib\npathlib.Path({str(marker)!r}).touch()\n"
        "def Model(**_):\n    import torch\n    return torch.nn.Linear(1, 1)\n"
    )


def reseal(run: Path) -> None:
    """As an attacker would: the manifest's hashes are those of the altered files."""
    path = run / "checkpoints" / STEP
    manifest = json.loads((path / "MANIFEST.json").read_text())
    for name in manifest["files"]:
        content = (path / name).read_bytes()
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))


def _set(tree: Any, key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for part in parents:
        tree = tree[part]
    tree[leaf] = value


def in_state(key: str, value: Any) -> Change:
    """A value of state.json; text with {marker} is filled in."""

    def change(run: Path, marker: Path) -> None:
        path = run / "checkpoints" / STEP / "state.json"
        state = json.loads(path.read_text())
        _set(state, key, filled(value, marker))
        path.write_text(json.dumps(state))
        reseal(run)

    return change


def together(*changes: Change) -> Change:
    return lambda run, marker: [change(run, marker) for change in changes]


def in_config(key: str, value: Any) -> Change:
    def change(run: Path, marker: Path) -> None:
        path = run / "config.yaml"
        tree = yaml.safe_load(path.read_text())
        _set(tree, key, filled(value, marker))
        path.write_text(yaml.safe_dump(tree))

    return change


def filled(value: Any, marker: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{marker}", str(marker))
    if isinstance(value, dict):
        return {key: filled(item, marker) for key, item in value.items()}
    return [filled(item, marker) for item in value] if isinstance(value, list) else value


def config_text(text: str) -> Change:
    """Lines put before the run's own config.yaml."""
    return lambda run, marker: (run / "config.yaml").write_text(
        filled(text, marker) + "\n" + (run / "config.yaml").read_text()
    )


def config_bytes(content: bytes) -> Change:
    return lambda run, _: (run / "config.yaml").write_bytes(content)


def checkpoint_file(name: str, content: bytes | Callable[[Path], bytes], sealed: bool = True) -> Change:
    def change(run: Path, marker: Path) -> None:
        file = run / "checkpoints" / STEP / name
        file.write_bytes(content if isinstance(content, bytes) else content(marker))
        if sealed:
            reseal(run)

    return change


def manifest(alter: Callable[[dict[str, Any], Path], object]) -> Change:
    def change(run: Path, marker: Path) -> None:
        file = run / "checkpoints" / STEP / "MANIFEST.json"
        content = json.loads(file.read_text())
        alter(content, marker)
        file.write_text(json.dumps(content))

    return change


def symlinked(name: str) -> Change:
    def change(run: Path, marker: Path) -> None:
        file = run / "checkpoints" / STEP / name
        shutil.move(file, marker.with_name("elsewhere"))
        file.symlink_to(marker.with_name("elsewhere"))

    return change


def weights(name: str, content: Callable[[Path], bytes]) -> Change:
    """A file for `model.pretrained=`, beside the run."""
    return lambda run, marker: (run.parent / name).write_bytes(content(marker))


def pickled(marker: Path) -> bytes:
    return pickle.dumps(Evil(marker))


def torch_zip(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "evil": Evil(marker)}, buffer)
    return buffer.getvalue()


def torch_legacy(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Evil(marker), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def zip_bomb(_: Path) -> bytes:
    """A torch file of one tensor: 1.25 GB of zeros, deflated to 1 MB."""
    blocks = 80
    buffer, bomb = io.BytesIO(), io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, buffer)
    claimed = b"J" + struct.pack("<i", blocks << 22)  # in place of the pickled 4: numbers of four bytes each
    with zipfile.ZipFile(buffer) as sound, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for name in sound.namelist():
            if not name.endswith("/data/0"):
                out.writestr(name, sound.read(name).replace(b"K\x04", claimed))
                continue
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            with out.open(info, "w", force_zip64=True) as entry:
                for _ in range(blocks):
                    entry.write(bytes(1 << 24))
    return bomb.getvalue()


def safetensors(header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def laughs(levels: int = 12, width: int = 10) -> str:
    """A billion laughs: each level refers to the one below ten times."""
    lines = ["l0: &l0 [ha, ha]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)
