"""Many starts at once: each run has a directory of its own, and a run has one writer at a time."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from campaign import count
from conftest import contents, fingerprint, only_run, records
from forks import finished, launch, until

pytestmark = pytest.mark.slow  # make test-all

TINY = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[8]", "listeners=[]")
STEP = (*TINY, "limit_batches=1", "epochs=1")
RUN = (*TINY, "limit_batches=10", "epochs=3", "save_every=1steps", "log_every=1steps")
ROUND = 32


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("unbroken")
    assert finished(launch(*RUN, cwd=cwd)) == 0
    return only_run(cwd)


def _steps(run: Path) -> int:
    """Steps that the newest checkpoint of a run has."""
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


def _together(cwd: Path, number: int, *words: str, before: Callable | None = None) -> list:
    """So many processes, all let go at the same moment."""
    processes = [launch(*words, cwd=cwd, output=cwd / f"said{i}", held=True, before=before) for i in range(number)]
    for process in processes:
        status = Path(f"/proc/{process.pid}/status")
        assert until(lambda status=status: "State:\tT" in status.read_text(), process)
    for process in processes:
        os.kill(process.pid, signal.SIGCONT)
    return processes


def _few_names() -> None:
    """Let chance fail: of the four letters that tell directories of one second apart, hardly any differ."""
    number = int.from_bytes(os.urandom(1), "big")
    secrets.token_hex = lambda _: f"{number % 4:04x}" if time.time() % 1 < 0.9 else f"{os.getpid():04x}"


@pytest.mark.slow
@pytest.mark.parametrize("names", ["", " whose chosen names collide"], ids=["free", "colliding"])
def test_starts_in_the_same_second(campaign: Callable, tmp_path: Path, names: str) -> None:
    key = f"STARTS{'_COLLIDING' if names else ''}"
    quick, full, before = (4, 64, _few_names) if names else (8, 200, None)
    total = count(key, quick, full)
    processes, owners = [], {}
    for trial in campaign(f"starts at the same moment{names}", key=key, quick=quick, full=full):
        if trial.number % ROUND == 0:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            processes = _together(cwd, min(ROUND, total - trial.number), *STEP, before=before)
            codes = [finished(process, 120) for process in processes]
            owners = {int((run / ".lock").read_text()): run for run in cwd.glob("outputs/*/*")}
        with trial:
            place = trial.number % ROUND
            assert codes[place] == 0, (cwd / f"said{place}").read_text()
            assert set(owners) == {process.pid for process in processes}  # as many directories, each of one
            run = owners[processes[place].pid]
            assert json.loads((run / "summary.json").read_text())["state"] == "done"
            assert {r["split"] for r in records(run)} == {"train", "val", "test"}
            assert fingerprint(run) == fingerprint(owners[processes[0].pid])


@pytest.mark.slow
def test_a_second_writer_and_a_dead_one(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("a second writer is refused, a dead one's lock recovered", key="WRITERS", quick=1, full=40):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            first, at = launch(*RUN, cwd=cwd), trial.random.randint(1, 15)
            assert until(lambda cwd=cwd, at=at: any(_steps(run) >= at for run in cwd.glob("outputs/*/*")), first)
            os.kill(first.pid, signal.SIGSTOP)  # so that only the second could change anything
            time.sleep(0.1)
            run = only_run(cwd)
            before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
            second = launch(f"resume={run}", cwd=cwd, output=cwd / "said")
            assert finished(second) == 5
            (line,) = (cwd / "said").read_text().splitlines()
            assert line.startswith(f"error: {run}: process {first.pid} is writing this run"), line
            assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
            if trial.number % 2:
                os.kill(first.pid, signal.SIGCONT)
                assert finished(first) == 0
            else:
                first.kill()
                finished(first)
                assert finished(launch(f"resume={run}", cwd=cwd)) == 0
            assert contents(run) == contents(unbroken)


def test_resumes_that_race(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("resumes of one run at the same moment", key="RACES", quick=1, full=30):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            first, at = launch(*RUN, cwd=cwd), trial.random.randint(1, 15)
            assert until(lambda cwd=cwd, at=at: any(_steps(run) >= at for run in cwd.glob("outputs/*/*")), first)
            first.kill()
            finished(first)
            run = only_run(cwd)
            racers = _together(cwd, 4, f"resume={run}")
            codes = [finished(racer, 60) for racer in racers]
            said = [(cwd / f"said{i}").read_text() for i in range(len(racers))]
            assert 0 in codes
            for code, text in zip(codes, said, strict=True):
                if code != 0:
                    (line,) = text.splitlines()
                    assert code == 5, line
                    holders = [f"process {racer.pid} is writing this run" in line for racer in racers]
                    assert holders.count(True) == 1, line
            log = (run / "train.log").read_text()
            assert log.count(" resumes at step ") == codes.count(0)
            assert contents(run) == contents(unbroken)
