"""Sweeps whose jobs or parent die: what others did stays, and a second start redoes only what is missing."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from campaign import count
from conftest import fingerprint, records
from forks import finished, until
from warm import only_sweep, sweep, swept, table

# a model that can end its job in several ways at its fourth step, until there is a file "healed"
PACKAGE = """
import os, signal, time
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, way: str = "good", pause: float = 0.0) -> None:
        super().__init__()
        self.way, self.pause, self.calls = way, pause, 0
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 10))
    def forward(self, x):
        self.calls += self.training
        time.sleep(self.pause)
        if self.calls == 4 and not Path("healed").exists():
            if self.way == "raise":
                raise RuntimeError("on purpose")
            if self.way == "exit":
                os._exit(7)
            if self.way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "memory":
                torch.empty(1 << 50)
            if self.way == "diverge":
                return self.body(x) * torch.nan
        return self.body(x)
"""
WAYS = {
    "raise": "exit code 1",
    "exit": "exit code 7",
    "kill": "SIGKILL",
    "memory": "exit code 6",
    "diverge": "exit code 4",
}
TRUST = "trust=[sweeps_pkg]"
JOB = (
    *("--config-dir=mine", "model=own", "device=cpu", "device.threads=1", "limit_batches=3", "epochs=2"),
    *("save_every=1steps", "log_every=1steps", "listeners=[]", TRUST),
)


def _project(cwd: Path) -> Path:
    (cwd / "mine" / "model").mkdir(parents=True)
    (cwd / "sweeps_pkg.py").write_text(PACKAGE)
    (cwd / "mine" / "model" / "own.yaml").write_text("_target_: sweeps_pkg.Net\nway: good\npause: 0.0\n")
    return cwd


def _started(directory: Path) -> list[int]:
    """Numbers of the jobs that were started, once for each time."""
    if not (directory / "journal.jsonl").exists():
        return []
    lines = (directory / "journal.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.endswith("}\n")]
    return [event["job"] for event in events if event["event"] == "started"]


def _more_started(directory: Path, before: int) -> bool:
    return len(_started(directory)) > before


def _done(directory: Path) -> set[int]:
    return {
        int(file.parent.name)
        for file in directory.glob("*/summary.json")
        if json.loads(file.read_text(encoding="utf-8"))["state"] == "done"
    }


def _resume(directory: Path, cwd: Path) -> tuple[str, ...]:
    return (f"resume={directory.relative_to(cwd)}", TRUST)


@pytest.mark.slow
def test_five_jobs_die_in_five_ways_and_only_they_are_run_again(tmp_path: Path) -> None:
    cwd, total = _project(tmp_path), count("SWEEP", quick=7, full=20)
    good = [f"good{number}" for number in range(total - len(WAYS))]
    ways = [*good[:2], *WAYS, *good[2:]]
    code, said = swept(*JOB, f"model.way={','.join(ways)}", cwd=cwd)
    directory = only_sweep(cwd)
    rows = table(said)
    assert [row[:2] for row in rows] == [[str(number), f"model.way={way}"] for number, way in enumerate(ways)], said
    assert {row[1][10:] for row in rows if row[2] == "done"} == set(good)
    for row in rows:
        way = row[1][10:]
        assert row[2] == "done" or WAYS[way] in row[2], said
    assert code == 1  # that of the first that failed
    assert f"-m resume={directory.relative_to(cwd)} {shlex.quote(TRUST)}" in said
    assert "Traceback" not in said
    assert len(_done(directory)) == len(good)

    (cwd / "healed").touch()
    again, said = swept(*_resume(directory, cwd), cwd=cwd)
    assert (again, _done(directory)) == (0, set(range(total))), said
    assert {row[2] for row in table(said)} == {"done"}
    dead = [number for number, way in enumerate(ways) if way in WAYS]
    assert sorted(_started(directory)[total:]) == dead
    for number in range(total):
        steps = [record["step"] for record in records(directory / str(number)) if record["split"] == "train"]
        assert steps == [1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep of four jobs that nothing happened to, and what it said."""
    cwd = _project(tmp_path_factory.mktemp("unbroken") / "it")
    code, said = swept(*JOB, "model.pause=0.02", "seed=1,2", "optim.lr=0.1,0.01", cwd=cwd)
    assert code == 0, said
    return cwd, said


def _as_before_its_start(unbroken: Path, cwd: Path) -> Path:
    """A copy of the sweep with its jobs frozen and none started."""
    shutil.copytree(unbroken, cwd, ignore=shutil.ignore_patterns("[0-9]", "journal.jsonl", "*.txt", "said"))
    return only_sweep(cwd)


def _becomes(directory: Path, unbroken: tuple[Path, str], said: str) -> None:
    """The sweep ended as the unbroken one: the same table, weights and metrics."""
    assert table(said) == table(unbroken[1]), said
    for number in range(4):
        there, here = only_sweep(unbroken[0]) / str(number), directory / str(number)
        assert fingerprint(here) == fingerprint(there)
        assert records(here) == records(there)


def _alive(directory: Path) -> bool:
    """Whether a process has a file of the sweep open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link).startswith(f"{directory}/"):
                return True
        except OSError:
            continue
    return False


@pytest.mark.slow
def test_the_parent_is_killed_at_random_moments(
    campaign: Callable[..., Iterator[Any]], unbroken: tuple[Path, str], tmp_path: Path
) -> None:
    for trial in campaign("kill -9 of a sweep at a random moment, go on", key="SWEEP_KILLS", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            directory = _as_before_its_start(unbroken[0], cwd)
            for _ in range(trial.random.randrange(1, 4)):
                done, before = _done(directory), len(_started(directory))
                process = sweep(*_resume(directory, cwd), cwd=cwd)
                until(partial(_more_started, directory, before), process)
                process.join(trial.random.uniform(0, 1.0))
                process.kill()
                process.join()
                assert not done & set(_started(directory)[before:])
            done, before = _done(directory), len(_started(directory))
            code, said = swept(*_resume(directory, cwd), cwd=cwd)  # at once: what is left of the last one is waited for
            assert code == 0, said
            assert not done & set(_started(directory)[before:])
            _becomes(directory, unbroken, said)
            assert not _alive(directory)


@pytest.mark.slow
def test_a_kill_leaves_no_process_and_no_lock(unbroken: tuple[Path, str], tmp_path: Path) -> None:
    directory = _as_before_its_start(unbroken[0], tmp_path / "it")
    process = sweep(*_resume(directory, tmp_path / "it"), cwd=tmp_path / "it")
    assert until(lambda: (directory / "0" / "metrics.jsonl").exists(), process)
    code, said = swept(*_resume(directory, tmp_path / "it"), cwd=tmp_path / "it")
    assert code == 5
    assert f"process {process.pid} " in said
    process.kill()
    process.join()
    deadline = time.monotonic() + 10
    while _alive(directory):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_signal_stops_a_sweep_in_order(
    campaign: Callable[..., Iterator[Any]], unbroken: tuple[Path, str], tmp_path: Path
) -> None:
    for trial in campaign("signal to a sweep at a random moment, go on", key="SWEEP_SIGNALS", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            directory = _as_before_its_start(unbroken[0], cwd)
            process = sweep(*_resume(directory, cwd), cwd=cwd)
            until(partial(_more_started, directory, 0), process)
            time.sleep(trial.random.uniform(0, 0.6))
            os.kill(process.pid, trial.random.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
            code, said = finished(process), (cwd / "said").read_text()
            assert code in (0, 75), said  # 0 where the last job was ending anyway
            assert "Traceback" not in said + "".join(file.read_text() for file in directory.glob("jobs/*.txt"))
            assert code == 0 or f"to resume: bigmodel-train -m {shlex.join(_resume(directory, cwd))}" in said
            assert not _alive(directory)
            code, said = swept(*_resume(directory, cwd), cwd=cwd)
            assert code == 0, said
            _becomes(directory, unbroken, said)


def test_a_signal_before_all_is_frozen_leaves_nothing(tmp_path: Path) -> None:
    cwd = _project(tmp_path)
    process = sweep(*JOB, "seed=1,2,3,4,5,6", cwd=cwd)
    assert until(lambda: list(cwd.glob("outputs/sweeps/*")), process)
    os.kill(process.pid, signal.SIGINT)
    assert finished(process) == 75
    assert "nothing more was started" in (cwd / "said").read_text()
    assert not (cwd / "outputs").exists()


@pytest.mark.slow
def test_the_process_that_jobs_are_forked_from_dies(unbroken: tuple[Path, str], tmp_path: Path) -> None:
    directory = _as_before_its_start(unbroken[0], tmp_path / "it")
    process = sweep(*_resume(directory, tmp_path / "it"), cwd=tmp_path / "it")
    assert until(lambda: (directory / "0" / "metrics.jsonl").exists(), process)
    (template,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(template), signal.SIGKILL)
    assert finished(process) == 0, (tmp_path / "it" / "said").read_text()
    _becomes(directory, unbroken, (tmp_path / "it" / "said").read_text())
