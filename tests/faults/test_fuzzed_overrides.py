"""Mistakes on the command line, made up at random: accepted and right, or refused in one line that names the key."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bigmodel.commands.command_line import parse
from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from bigmodel.datasets.files import download
from bigmodel.errors import ConfigError
from conftest import Answer, call, is_quiet, python
from overrides import GROUPS, ODD, ODD_WORDS, VALID

pytestmark = pytest.mark.slow  # make test-all

BASE = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[4]", "limit_batches=1", "dry_run=true")
SOURCE = ConfigSource((conf_directory(),), "train")
FRESH = 50  # one in so many refusals is repeated in a fresh process, to see what it imports


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no network in these trials")

    monkeypatch.setattr(download, "_open", refused)


def _spoilt(word: str, chance: random.Random) -> str:
    """A word with one to three characters dropped, doubled, exchanged, replaced or put in."""
    letters = list(word)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(letters) + 1)
        new = chance.choice("abz019._-+~=,[]{}()'\"$@ :/\\é\t")
        kind = chance.randrange(4)
        if kind == 0 or place == len(letters):
            letters.insert(place, new)
        elif kind == 1:
            del letters[place]
        elif kind == 2:
            letters[place] = new
        else:
            letters.insert(place, letters[place])
    return "".join(letters)


def _valid(chance: random.Random) -> str:
    pool = chance.choice([VALID, VALID, VALID, GROUPS])
    key = chance.choice(list(pool))
    return f"{key}={chance.choice(pool[key])}"


def _word(chance: random.Random) -> str:
    kind = chance.randrange(8)
    key = chance.choice([*VALID, *VALID, *GROUPS])
    if kind == 0:
        return _valid(chance)
    if kind == 1:
        return f"{key}={chance.choice(ODD)}"
    if kind == 2:
        return chance.choice(ODD_WORDS)
    if kind == 3:
        value = chance.choice((VALID | GROUPS)[key])
        return f"{_spoilt(key, chance)}={value}"
    if kind == 4:
        return f"{key}={_spoilt(chance.choice((VALID | GROUPS)[key]), chance)}"
    if kind == 5:
        return chance.choice(["+", "++", "~"]) + _valid(chance)
    if kind == 6 and chance.random() < 0.1:
        return f"{key}={chance.choice(['x', '1', 'é', '[', chr(39)]) * 1_000_000}"
    return _spoilt(_valid(chance), chance)


def _key(word: str) -> str:
    """What a line about this word must contain: the end of its key, or the word where it has none."""
    key = word.partition("=")[0].lstrip("+~ ").partition("@")[0].strip()
    return key.rpartition(".")[2].rpartition("/")[2]


def _asked(word: str) -> tuple[str, Any] | None:
    """Key and value that an accepted word sets, by Hydra's grammar; None where it deletes or chooses."""
    texts = parse([word]).overrides
    if not texts:  # a flag
        return None
    (text,) = texts
    override = OverridesParser.create().parse_override(text)
    if override.is_delete() or override.key_or_group in (*GROUPS, "model", "device") or "/" in override.key_or_group:
        return None
    return override.key_or_group, override.value()


def _is_right(words: list[str]) -> None:
    """Each accepted word has the value that was asked for, and a chosen group is the one of that name."""
    config = compose("train", parse([*BASE, *words]).overrides, SOURCE)
    tree = OmegaConf.create(config.to_dict())
    last = {key: value for word in words if (asked := _asked(word)) for key, value in [asked]}
    for key, value in last.items():
        if key.startswith("hydra") or (isinstance(value, str) and "${" in value):
            continue
        found = OmegaConf.select(tree, key)
        found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        expected = (
            value if isinstance(value, (list, dict)) else OmegaConf.create({"v": getattr(value, "text", value)}).v
        )
        assert found == expected or str(found) == str(expected), f"{key} is {found!r}, not {expected!r}"
    for word in words:
        key, _, choice = word.partition("=")
        if key in GROUPS and choice.isidentifier() and choice != "null" and key != "experiment":
            target = OmegaConf.load(conf_directory() / key / f"{choice}.yaml").get("_target_")
            assert target is None or tree[key]._target_ == target


def _judge(words: list[str], answer: Answer) -> None:
    assert list(answer.cwd.iterdir()) == [], "something was made"
    assert "Traceback" not in answer.err + answer.out
    if answer.code == 0:
        assert "dry run" in answer.out or {"--help", "-h", "--version"} & set(words)
        _is_right(words)
        return
    lines = is_quiet(answer, code=3 if answer.code == 3 and any("dataset" in word for word in words) else 2)
    assert len(lines) <= len(words), lines
    for line in lines:
        assert line.isprintable()
        assert len(line) < 600
    text = "\n".join(lines)
    if len(words) == 1:
        shown = _key(words[0])[:60]
        named = {shown, shown.encode("unicode_escape").decode()}
        if words[0].startswith("-"):  # a flag goes by its long name, or by what it was given
            named |= {words[0].partition("=")[2] or shown, "--config-"}
        assert not shown.isprintable() or any(name in text for name in named), f"{shown!r} is not named in {lines}"


def _shown(words: list[str]) -> str:
    return ", ".join(ascii(word if len(word) < 80 else word[:40] + "...") for word in words)


_IMPORTED = """
import sys
from bigmodel.cli import _run_guarded
code = _run_guarded("train", sys.argv[1:])
print("LOADED", code, "torch" in sys.modules)
"""


def _by_yaml_alone(words: list[str]) -> bool:
    """Whether composing already refuses it; foreign targets must be imported to be read."""
    if any("_target_" in word or "\x00" in word or not word.isascii() or len(word) > 1000 for word in words):
        return False
    try:
        compose("train", parse([*BASE, *words]).overrides, SOURCE)
    except ConfigError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fuzzed_overrides(campaign: Callable[..., Any], tmp_path: Path) -> None:
    trials = campaign(
        "an override with a typo, a wrong type or range, NaN, odd text, a megabyte, or broken grammar",
        key="OVERRIDES",
        quick=10,
        full=1000,
    )
    refused = 0
    for trial in trials:
        chance = trial.random
        words = [_word(chance) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
        cwd = tmp_path / str(trial.number)
        cwd.mkdir()
        with trial:
            try:
                answer = call(*BASE, *words, cwd=cwd)
                _judge(words, answer)
                if answer.code == 2:
                    refused += 1
                    if refused % FRESH == 1 and _by_yaml_alone(words):
                        done = python("-c", _IMPORTED, *BASE, *words, cwd=cwd)
                        assert done.stdout.splitlines()[-1] == "LOADED 2 False", done.stderr
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{_shown(words)}: {type(error).__name__}: {error}") from error


def test_independent_mistakes_are_each_told(campaign: Callable[..., Any], tmp_path: Path) -> None:
    """Several mistakes about different keys: exactly the lines that each alone would give."""
    bad = ["nan", "[1,2]", "{a: 1}", "-1", "fast", "1e400", "''"]
    keys = ["seed", "epochs", "batch_size", "keep", "optim.lr", "optim.weight_decay", "schedule.warmup", "log_every"]
    for trial in campaign("several mistakes on one command line", key="MISTAKES", quick=1, full=100):
        with trial:
            chosen = trial.random.sample(keys, trial.random.randrange(2, 6))
            words = [f"{key}={trial.random.choice(bad)}" for key in chosen]
            words.append(trial.random.choice(["optim.lrr=1", "modell=mlp", "schedule=cosin", "seed"]))
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            together = is_quiet(call(*BASE, *words, cwd=cwd), code=2)
            alone = [line for word in words for line in is_quiet(call(*BASE, word, cwd=cwd), code=2)]
            assert sorted(together) == sorted(set(alone)), words
