"""The power may go at any moment: nothing is published, and nothing older removed, before it is on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tracing
from conftest import TINY
from durability import violations
from forks import finished, launch
from tracing import Call

CALLS = "openat,write,pwrite64,writev,pwritev,ftruncate,fsync,fdatasync,mkdir,mkdirat"
CALLS += ",rename,renameat,renameat2,unlink,unlinkat,rmdir"
WORDS = (*TINY, "device.threads=1", "ema=0.9", "save_every=1steps", "evaluate_every=2steps")


def _traced(*words: str, cwd: Path, log: Path) -> list[Call]:
    process = launch(*words, cwd=cwd, held=True)
    with tracing.attached(process.pid, log, "-e", f"trace={CALLS}"):
        assert finished(process) == 0
    return list(tracing.calls(log, cwd))


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The calls of a whole run, and of its resumption to twice the epochs."""
    tracing.needs_strace()
    cwd, logs = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("logs")
    new = _traced(*WORDS, cwd=cwd, log=logs / "new")
    (run,) = cwd.glob("outputs/*/*")
    resumed = _traced(f"resume={run}", "epochs=4", cwd=cwd, log=logs / "resumed")
    return {"a new run": new, "a resumed run": resumed, "cwd": cwd, "run": run}


def _published(calls: list[Call]) -> set[str]:
    renames = [call.paths[1] for call in calls if call.name.startswith("rename") and not call.failed]
    return {os.path.basename(path) for path in renames if ".tmp" not in path}


PUBLISHED = {"last.json", "best.json", "summary.json", "config.yaml"}


@pytest.mark.slow
def test_what_is_published_is_on_the_disk(traces: dict[str, Any], campaign: Callable[..., Any]) -> None:
    kinds = ("a new run", "a resumed run")
    for trial in campaign("power loss: order of syncs and renames in a traced run", key="POWER", quick=2, full=2):
        with trial:
            kind = kinds[trial.number % 2]
            calls = traces[kind]
            steps = range(1, 7) if kind == "a new run" else range(7, 13)
            assert _published(calls) >= PUBLISHED | {f"step-{step:08d}" for step in steps}
            assert violations(calls, str(traces["cwd"])) == []


def _without_sync_of(calls: list[Call], what: Callable[[str], bool]) -> list[Call]:
    return [call for call in calls if not (call.name == "fsync" and what(call.paths[0]))]


@pytest.mark.parametrize("left_out", ["files", "directory", "parent", "pointer"])
def test_a_sync_left_out_is_noticed(traces: dict[str, Any], left_out: str) -> None:
    """The judge of the orders must itself be able to say no."""
    calls, root = traces["a new run"], str(traces["run"] / "checkpoints")
    known = set(violations(calls, root))
    is_left_out = {
        "files": lambda path: path.endswith(".safetensors"),
        "directory": lambda path: os.path.dirname(path) == root and os.path.basename(path).startswith(".tmp-"),
        "parent": lambda path: path == root,
        "pointer": lambda path: os.path.basename(path).startswith(".tmp-"),
    }[left_out]
    rest = _without_sync_of(calls, is_left_out)
    assert len(rest) < len(calls)
    assert set(violations(rest, root)) - known


def test_a_sync_too_late_is_noticed(traces: dict[str, Any]) -> None:
    calls, root = traces["a new run"], str(traces["run"] / "checkpoints")
    late = [call for call in calls if call.name == "fsync"]
    early = [replace(call) for call in calls if call.name != "fsync"]
    assert len(violations(early + late, root)) > len(violations(calls, root))


def test_a_new_directory_is_on_the_disk_before_what_is_in_it_counts(traces: dict[str, Any]) -> None:
    """A synced checkpoint is lost all the same if the name of a directory above it is not on the disk."""
    calls, cwd = traces["a new run"], str(traces["cwd"])
    made, synced = {}, set[str]()
    for index, call in enumerate(calls):
        if call.name == "mkdir" and not call.failed and call.paths[0].startswith(cwd) and ".tmp" not in call.paths[0]:
            made[call.paths[0]] = index
        elif call.name == "fsync":
            synced |= {path for path in made if os.path.dirname(path) == call.paths[0]}
        elif call.name == "rename" and os.path.basename(call.paths[1]) == "last.json":
            assert [path for path in made if path not in synced] == []
            return
    pytest.fail("nothing was saved")
