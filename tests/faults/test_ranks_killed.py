"""A run of several ranks of which one is killed or stopped at any moment: it ends in the bits of an unbroken one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest

import committing
from bigmodel.training.state import TrainState
from campaign import chosen, count
from conftest import contents, fingerprint, only_run
from forks import ForkServerProcess, finished, until
from several_ranks import LONG, is_alive, output_of, rank_processes, start

WORDS = (  # everything that keeps state or draws random numbers
    *("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[16]", "model.dropout=0.1", "optim=adamw"),
    *("dataset.augment.flip=true", "ema=0.9", "limit_batches=12", "epochs=2", "log_every=1steps", "listeners=[]"),
    *("save_every=4steps", "evaluate_every=6steps", "device.count=2"),
)
TIMEOUT = "device.timeout=5"


@dataclass(frozen=True)
class Whole:
    """The unbroken run, and how long one takes."""

    run: Path
    seconds: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    seconds = []
    for _ in range(3):
        cwd = tmp_path_factory.mktemp("whole")
        process, began = start(cwd, *WORDS), time.monotonic()
        assert finished(process, LONG) == 0, output_of(cwd)
        seconds.append(time.monotonic() - began)
    return Whole(only_run(cwd), median(seconds[1:]))  # the first one waits for the server


def _caught(process: ForkServerProcess, moment: float, dice: Random, number: int) -> bool:
    """Send a signal to a random rank after `moment` seconds; whether there still was one."""
    until(lambda: rank_processes(process), process, LONG)
    process.join(moment)
    if process.exitcode is not None or not (ranks := rank_processes(process)):
        return False
    try:
        os.kill(dice.choice(ranks), number)
    except ProcessLookupError:
        return False
    return True


def _as_unbroken(cwd: Path, whole: Whole, keys: tuple[str, ...] = ()) -> None:
    for made in cwd.glob("outputs/????-??-??/*"):
        if not (made / "config.yaml").is_file():  # of a rank that was killed before it could say what it had made
            assert {path.name for path in made.iterdir()} <= {".lock"}
            shutil.rmtree(made)
    run = only_run(cwd)
    assert fingerprint(run) == fingerprint(whole.run)
    if not keys:
        assert contents(run) == contents(whole.run)
    assert _left(run) == _left(whole.run)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if line["split"] == "train"]
    assert steps == [*range(1, 25)]


def _left(run: Path) -> list[str]:
    """All files, temporaries too; a lock that is held by nobody may stay."""
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.name != ".lock")


def _trial(cwd: Path, whole: Whole, dice: Random, number: int, *words: str) -> None:
    while True:
        process = start(cwd, *WORDS, *words)
        if _caught(process, dice.uniform(0, whole.seconds), dice, number):
            break
        assert finished(process, LONG) == 0, output_of(cwd)  # it came to its end first, which is no trial: begin again
        shutil.rmtree(cwd)
    assert finished(process, LONG) == 0, output_of(cwd)
    _as_unbroken(cwd, whole, words)
    shutil.rmtree(cwd)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_killed_rank(whole: Whole, tmp_path: Path, campaign: Callable[..., Any]) -> None:
    for trial in campaign("kill -9 of a random rank at a random moment", key="RANK_KILLS", quick=2, full=80):
        with trial:
            _trial(tmp_path / str(trial.number), whole, trial.random, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_stopped_rank(whole: Whole, tmp_path: Path, campaign: Callable[..., Any]) -> None:
    for trial in campaign("SIGSTOP of a random rank at a random moment", key="RANK_STOPS", quick=1, full=20):
        with trial:
            _trial(tmp_path / str(trial.number), whole, trial.random, signal.SIGSTOP, TIMEOUT)


def _kill_at(phase: str, rank: int, nth: int) -> None:
    """Have one rank end itself when a phase comes for the nth time, in the first start of the run only."""
    mark, seen, starter = Path("killed").absolute(), 0, os.getpid()

    def at(world_rank: int) -> None:
        nonlocal seen
        if world_rank != rank or mark.exists() or os.getpid() == starter:  # which renames and removes too
            return
        seen += 1
        if seen == nth:
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    if phase == "save":
        for module, name in committing.FAIL_POINTS:
            whole = getattr(module, name)

            def watched(*given: Any, _whole: Any = whole, **named: Any) -> Any:
                at(0)
                return _whole(*given, **named)

            setattr(module, name, watched)
        return
    owner, name = {"step": (TrainState, "train_step"), "finite": (TrainState, "check_finite")}[phase]
    method = getattr(owner, name)

    def hooked(self: TrainState, *given: Any) -> Any:
        at(self.device.world.rank)
        return method(self, *given)

    setattr(owner, name, hooked)


POINTS = (
    *(("step", rank, nth) for rank in (0, 1) for nth in range(1, 25)),  # in the midst of the collectives of the others
    *(("finite", rank, nth) for rank in (0, 1) for nth in range(1, 10)),  # before an evaluation or a save
    *(("save", 0, nth) for nth in range(1, 101)),  # between any two fsyncs, renames and removals of rank 0
)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_rank_killed_in_each_phase(whole: Whole, tmp_path: Path, campaign: Callable[..., Any]) -> None:
    key, quick, full = "RANK_POINTS", 1, 80
    fault = "kill -9 of a rank in a step, before an evaluation, at an fsync or rename of a save"
    for trial in campaign(fault, key=key, quick=quick, full=full):
        with trial:
            point = chosen(POINTS, trial, count(key, quick, full))
            cwd = tmp_path / str(trial.number)
            process = start(cwd, *WORDS, before=partial(_kill_at, *point))
            assert finished(process, LONG) == 0, (point, output_of(cwd))
            assert "was killed by SIGKILL" in output_of(cwd), f"{point} never came"
            _as_unbroken(cwd, whole)
            shutil.rmtree(cwd)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_process_that_started_the_ranks_is_killed(
    whole: Whole, tmp_path: Path, campaign: Callable[..., Any]
) -> None:
    fault = "kill -9 of the process that started the ranks, resume"
    for trial in campaign(fault, key="RANK_STARTERS", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            process = start(cwd, *WORDS)
            assert until(lambda process=process: len(rank_processes(process)) == 2, process, LONG)
            process.join(trial.random.uniform(0, whole.seconds))
            ranks = rank_processes(process)
            process.kill()
            process.join()
            deadline = time.monotonic() + 10
            while any(map(is_alive, ranks)):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            begun = [path.parent for path in cwd.glob("outputs/*/*/config.yaml")]
            assert finished(start(cwd, *([f"resume={begun[0]}"] if begun else WORDS)), LONG) == 0, output_of(cwd)
            _as_unbroken(cwd, whole)
            shutil.rmtree(cwd)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_signal_to_any_process(whole: Whole, tmp_path: Path, campaign: Callable[..., Any]) -> None:
    fault = "SIGTERM, SIGINT or SIGUSR1 to the command or one rank at a random moment, resume"
    for trial in campaign(fault, key="RANK_SIGNALS", quick=1, full=30):
        with trial:
            cwd = tmp_path / str(trial.number)
            process = start(cwd, *WORDS)
            assert until(lambda process=process: len(rank_processes(process)) == 2, process, LONG)
            process.join(trial.random.uniform(0, whole.seconds))
            if process.exitcode is None:
                number = trial.random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
                os.kill(trial.random.choice([process.pid, *rank_processes(process)]), number)
            code = finished(process, LONG)
            assert code in (0, 75), output_of(cwd)
            begun = [path.parent for path in cwd.glob("outputs/*/*/config.yaml")]
            if code == 75:
                assert len(output_of(cwd).splitlines()) == 1, output_of(cwd)
                assert finished(start(cwd, *([f"resume={begun[0]}"] if begun else WORDS)), LONG) == 0, output_of(cwd)
            _as_unbroken(cwd, whole)
            shutil.rmtree(cwd)
