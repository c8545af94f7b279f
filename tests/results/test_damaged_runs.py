"""One run that is damaged, or a stranger's, never ends the reading of others: it costs warnings."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigmodel.errors import ConfigError
from bigmodel.runs import records as reading
from conftest import Answer, call
from made_runs import made_run, made_sweep

FILES = ("summary.json", "environment.json", "config.yaml", "metrics.jsonl")
HUGE = "a number of 5000 digits"  # which Python does not write, nor read
VALUES: list[Any] = [
    *(None, True, -1, 0, 2**63, -(2**63), HUGE, 1.5, 1e308, math.nan, math.inf, -math.inf, "", "abc", "\x1b[31m"),
    *("a\nb", "é" * 40, "x" * 70_000, [], [[]], [1, "a", None], {}, {"_target_": 5}, {"_target_": "os.system"}),
    *({"a": {"b": {"c": 1}}}, ["a"] * 1000, {"value": "x"}, {"value": math.nan, "step": -1}, "\ud800"),
]
TEXTS = [
    *("", "[]", "null", "[" * 100_000, "{", '{"a": 1', "\x00", "﻿{}", '{"step": ' + "9" * 6000 + "}", "a: !!bool abc"),
    *("a: " + "9" * 6000, "step: abc", "a: !!timestamp x", "a: !!int x", "a: !!binary x", "a: !!set {b}", "? [a]\n: b"),
    *("a: !!omap [x]", "a: &a [*a]", "a: 2026-13-45", "a:\n\tb: 1", "a: 1\na: 2", "a: !!python/name:os.system", "\xff"),
    *("1: 2\nnull: 3\ntrue: 4\n1.5: 6", "seed: .nan\nmodel: 5\noptim: [1]", "state: x\nage: y\nbest: z\nsteps: w"),
    *(
        "model: {_target_: [a]}",
        "model: {_target_: {b: c}}",
        "<<: 5",
        "a: 0o777777777777777777777777777777",
        "a: 1:2:3",
    ),
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    day = tmp_path / "outputs" / "2026-11-24"
    made_run(day / "10-00-00-aaaa", 0.95, model="cnn")
    made_run(day / "11-00-00-bbbb", 0.90, seed=1)
    made_sweep(tmp_path / "outputs" / "sweeps" / "2026-11-23_10-00-00-eeee", {0.2: [0.85, 0.8]})
    return tmp_path


def _survives(answer: Answer, runs: int | None = None) -> None:
    said = answer.err
    assert answer.code == 0, said
    assert all(line.startswith("warning: ") and line.isprintable() for line in said.splitlines()), said
    assert all(line.isprintable() for line in answer.out.splitlines()), answer.out
    assert runs is None or len(answer.out.splitlines()) == runs


def _look(place: Path, name: str) -> None:
    broken = next(place.glob("outputs/*/12-*"))
    for words in (["format=json"], ["sort=step"], ["sort=test/accuracy", "seed=0"], ["sort=best"]):
        answer = call(*words, cwd=place, verb="runs")
        _survives(answer, runs=5 if words == ["format=json"] else None)
        assert "aaaa" in answer.out, name
    sound = next(place.glob("outputs/*/10-*"))
    for more in ([], ["format=json"], ["metric=val/accuracy"]):
        answer = call(str(sound), str(broken), *more, cwd=place, verb="compare")
        assert answer.code in (0, 2), answer.err
        assert "internal" not in answer.err
        assert "Traceback" not in answer.err
        assert all(line.isprintable() for line in answer.err.splitlines())


def _broken(runs: Path, state: str | None = "done") -> Path:
    return made_run(runs / "outputs" / "2026-11-24" / "12-00-00-cccc", 0.7, lr=0.5, state=state)


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_in_place_of_a_file(runs: Path, text: str) -> None:
    for name in FILES:
        broken = _broken(runs)
        (broken / name).write_bytes(text.encode("utf-8", "surrogatepass") if text != "\xff" else b"\xff\xfe")
        _look(runs, name)
        shutil.rmtree(broken)


def _spoilt(tree: Any, chance: random.Random) -> Any:
    """The tree with one of its values, at any depth, exchanged, removed, or moved under an odd key."""
    if not isinstance(tree, (dict, list)) or not tree or chance.random() < 0.15:
        return chance.choice(VALUES)
    if isinstance(tree, list):
        place = chance.randrange(len(tree))
        return [*tree[:place], _spoilt(tree[place], chance), *tree[place + 1 :]]
    key = chance.choice(list(tree))
    kind = chance.randrange(6)
    if kind == 0:
        return {name: value for name, value in tree.items() if name != key}
    if kind == 1:
        return tree | {chance.choice(["", "step", "_target_", "a" * 300, "\x1b", "state", "path"]): tree[key]}
    return tree | {key: _spoilt(tree[key], chance)}


def _write(file: Path, tree: Any) -> None:
    text = yaml.dump(tree) if file.suffix == ".yaml" else json.dumps(tree)
    file.write_bytes(_with_huge(text).encode("utf-8", "surrogatepass"))


def _with_huge(text: str) -> str:
    return re.sub(f"[\"']?{HUGE}[\"']?", "9" * 5000, text)


def _fuzzed(runs: Path, chance: random.Random) -> None:
    broken = _broken(runs, chance.choice(["done", "failed", None]))
    for name in chance.sample(FILES, chance.choice([1, 1, 2, 4])):
        file = broken / name
        if not file.exists():
            continue
        if name == "metrics.jsonl":
            lines = [json.dumps(_spoilt(json.loads(line), chance)) for line in file.read_text().splitlines()]
            file.write_bytes(_with_huge("\n".join(lines)).encode("utf-8", "surrogatepass"))
        else:
            load = yaml.safe_load if file.suffix == ".yaml" else json.loads
            _write(file, _spoilt(load(file.read_text()), chance))
    _look(runs, "fuzzed")
    shutil.rmtree(broken)


@pytest.mark.parametrize("seed", range(20))
def test_one_value_that_is_another(runs: Path, seed: int) -> None:
    _fuzzed(runs, random.Random(seed))


@pytest.mark.slow
def test_many_values_that_are_others(runs: Path, campaign: Callable[..., Any]) -> None:
    for trial in campaign("a run's files with values exchanged at random", key="DAMAGED", quick=200, full=2000):
        with trial:
            _fuzzed(runs, trial.random)


def test_a_folder_that_is_closed_to_us_costs_a_warning(runs, monkeypatch):
    closed = runs / "outputs" / "2026-11-24" / "10-00-00-aaaa"
    stat = Path.stat

    def refusing(path, **options):
        if path.parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    warnings: list[str] = []
    found = reading.find_runs(runs / "outputs", warnings)
    assert len(found) == 3
    assert warnings == [f"{closed}: cannot be read: Permission denied"]
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        reading.read_run_or_sweep(closed, [])


@pytest.mark.parametrize("seed", [[1, 2], {"a": 1}, [[]]])
def test_a_seed_that_is_no_number_is_compared(runs, seed):
    odd = made_run(runs / "outputs" / "2026-11-24" / "12-00-00-cccc", 0.7, seed=seed)
    answer = call("compare", str(odd), str(runs / "outputs" / "2026-11-24" / "11-00-00-bbbb"), cwd=runs)
    assert answer.code in (0, 2), answer.err


def test_what_is_wrong_with_a_run_is_said_in_plain_words(runs: Path) -> None:
    day = runs / "outputs" / "2026-11-24"
    for name, change in (
        ("10-00-00-aaaa", {"step": "abc"}),
        ("11-00-00-bbbb", {"seconds": [1]}),
    ):
        file = day / name / "summary.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    (_broken(runs) / "summary.json").write_text('{"step": ' + "9" * 6000 + "}")
    (day / "12-00-00-cccc" / "config.yaml").write_text("a: !!bool abc\n")
    answer = call(cwd=runs, verb="runs")
    _survives(answer)
    said = "".join(sorted(answer.err.splitlines(keepends=True)))
    for line in ("step: 'abc' is not a number", "seconds: [1] is not a number", "a number of more than 4300 digits"):
        assert f"summary.json: {line}\n" in said.replace("cannot be read: ", "")
    assert "config.yaml: cannot be read: KeyError: 'abc'\n" in said
