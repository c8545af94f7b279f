"""A run killed with SIGKILL at any moment, once or five times in a row, ends in the bits of one that was not."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest

import committing
from campaign import chosen, count
from conftest import contents, fingerprint
from forks import finished, launch

SAVE_EVERY = 4
WORDS = (  # everything that keeps state or draws random numbers
    *("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[16]", "model.dropout=0.1", "optim=adamw"),
    *("dataset.augment.flip=true", "ema=0.9", "accumulate=2", "limit_batches=12", "epochs=2", "log_every=1steps"),
    *(f"save_every={SAVE_EVERY}steps", "evaluate_every=6steps"),
)


@dataclass(frozen=True)
class Whole:
    """The unbroken run, and how long one takes."""

    run: Path
    seconds: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    seconds = []
    for _ in range(4):
        cwd = tmp_path_factory.mktemp("whole")
        process, began = launch(*WORDS, cwd=cwd), time.monotonic()
        assert finished(process) == 0
        seconds.append(time.monotonic() - began)
    (run,) = cwd.glob("outputs/*/*")
    assert len(fingerprint(run)) == 3  # model, optimizer, ema
    return Whole(run, median(seconds[1:]))  # the first one waits for the server


def _start(cwd: Path) -> Sequence[str]:
    """The command line with which a person goes on: resume, or anew where no run had begun."""
    begun = [path.parent for path in cwd.glob("outputs/*/*/config.yaml")]
    assert len(begun) <= 1
    return (f"resume={begun[0]}",) if begun else WORDS


def _killed(cwd: Path, moment: float) -> bool:
    """Start or go on, and kill after `moment` seconds; whether it was still there to be killed."""
    process = launch(*_start(cwd), cwd=cwd, output=cwd / "output")
    process.join(moment)
    process.kill()
    code = finished(process)
    assert code in (0, -signal.SIGKILL), (cwd / "output").read_text()
    return code != 0


def _committed(cwd: Path) -> int:
    return max((int(path.name[5:]) for path in cwd.glob("outputs/*/*/checkpoints/step-*")), default=0)


def _reached(cwd: Path) -> int:
    """The last step that the metrics tell of; the line that the kill tore does not count."""
    lines = [line for path in cwd.glob("outputs/*/*/metrics.jsonl") for line in path.read_text().splitlines(True)]
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def _goes_on_to_the_same(cwd: Path, whole: Whole) -> None:
    """Go on to the end: from the newest checkpoint, redoing little, to bitwise the unbroken run."""
    committed, reached = _committed(cwd), _reached(cwd)
    # a save is committed while the next steps are computed, and is waited for at the next save
    assert reached - committed <= 2 * SAVE_EVERY, f"at step {reached} only step {committed} was committed"
    log = cwd / "last-output"
    assert finished(launch(*_start(cwd), cwd=cwd, output=log)) == 0, log.read_text()
    (run,) = (path.parent for path in cwd.glob("outputs/*/*/config.yaml"))
    begins = [line for line in (run / "train.log").read_text().splitlines() if " steps (" in line][-1]
    assert (f" resumes at step {committed}:" if committed else " starts:") in begins
    assert fingerprint(run) == fingerprint(whole.run)
    assert contents(run) == contents(whole.run)
    assert _left(run) == _left(whole.run)
    for name in ("last.json", "best.json"):
        there = (run / "checkpoints" / name).read_bytes()
        assert there == (whole.run / "checkpoints" / name).read_bytes(), f"{name}: {there!r}"


def _left(run: Path) -> list[str]:
    """All files, temporaries too; a lock that is held by nobody may stay."""
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.name != ".lock")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_once(whole: Whole, tmp_path: Path, campaign: Callable[..., Any]) -> None:
    for trial in campaign("kill -9 at a random moment, then resume", key="KILLS", quick=3, full=240):
        with trial:
            _chain(tmp_path / str(trial.number), 1, whole, trial.random)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_five_times_in_a_row(whole: Whole, tmp_path: Path, campaign: Callable[..., Any]) -> None:
    for trial in campaign("kill -9 five times in a row, resume each time", key="CHAINS", quick=1, full=60):
        with trial:
            _chain(tmp_path / str(trial.number), 5, whole, trial.random)


def _chain(cwd: Path, kills: int, whole: Whole, dice: Random) -> None:
    cwd.mkdir()
    latest = whole.seconds if kills == 1 else whole.seconds / 2  # in a chain less is left to do each time
    fell = 0
    while fell < kills:
        if _killed(cwd, dice.uniform(0, latest)):
            fell += 1
        else:  # it came to its end first, which is no trial: begin again
            shutil.rmtree(cwd)
            cwd.mkdir()
            fell = 0
    _goes_on_to_the_same(cwd, whole)
    shutil.rmtree(cwd)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_at_every_fail_point(whole: Whole, tmp_path: Path, campaign: Callable[..., Any]) -> None:
    """Between two of these calls lie the states that a random moment seldom meets."""
    calls = tmp_path / "calls"
    assert finished(launch(*WORDS, cwd=tmp_path, before=partial(committing.record, calls))) == 0
    names = calls.read_text().splitlines()
    key, quick, full = "KILL_POINTS", 2, len(names)
    assert full > 150
    fault = "kill -9 at an fsync, rename or removal of a run, then resume"
    for trial in campaign(fault, key=key, quick=quick, full=full):
        with trial:
            nth = chosen(range(full), trial, count(key, quick, full))
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            process = launch(*WORDS, cwd=cwd, output=cwd / "output", before=partial(committing.arm, nth, 0))
            assert finished(process) == -signal.SIGKILL
            try:
                _goes_on_to_the_same(cwd, whole)
            except Exception as error:
                raise AssertionError(f"at call {nth}, {names[nth]}: {error}") from error
            shutil.rmtree(cwd)
