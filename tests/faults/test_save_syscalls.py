"""A save that is killed, or refused by the disk, at any of its system calls: the old state or the new, never less."""

from __future__ import annotations

import errno
import json
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import committing
import tracing
from bigmodel.runs import checkpoint
from bigmodel.runs.manifest import verify
from campaign import chosen, count
from forks import finished

# What changes a disk. A close or a read changes nothing: a kill there leaves what a kill at the next call of this list
# leaves. Reads that fail are the business of other tests.
CHANGING = ("openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "fchmod", "mkdir", "mkdirat")
CHANGING += ("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir")
REMOVING = ("unlink", "unlinkat", "rmdir")
REFUSALS = (errno.ENOSPC, errno.EIO)


@dataclass(frozen=True)
class Case:
    """A root as it is before a save, and that save: its step, the value of its weights, the best step after it."""

    name: str
    prepare: Callable[[Path], None]
    old: int | None  # the step that loads before, whose weights have the same value
    step: int
    value: int

    @property
    def best(self) -> int:
        return self.step


def _first(root: Path) -> None:
    assert not root.exists()


def _again(root: Path) -> None:
    """Step 3 has been found damaged, and the run went on from step 2."""
    for step in (1, 2, 3):
        committing.save(root, step, step, best=2 if step > 1 else 1)
    file = root / "step-00000003" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def _full(root: Path) -> None:
    """Two newest and the best so far: a save that is the new best removes two."""
    for step in (1, 2, 3):
        committing.save(root, step, step, best=1)


CASES = (
    Case("first", _first, old=None, step=1, value=1),
    Case("again", _again, old=2, step=3, value=7),
    Case("prune", _full, old=3, step=4, value=4),
)


@dataclass(frozen=True)
class Point:
    """Where the n-th call of a name meets its end. `number` is the error, or 0 for a kill."""

    case: Case
    name: str
    nth: int
    number: int


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Each case's root, to be copied."""
    places = {case.name: tmp_path_factory.mktemp(case.name) / "checkpoints" for case in CASES}
    for case in CASES:
        case.prepare(places[case.name])
    return places


def _copied(root: Path, target: Path) -> Path:
    if root.exists():
        shutil.copytree(root, target)
    return target


def _points(case: Case, root: Path, scratch: Path) -> list[Point]:
    """Every changing call of an undisturbed save, times what can happen to it."""
    process = committing.launch(root, case.step, case.value, case.best)
    with tracing.attached(process.pid, scratch / "trace"):
        assert finished(process) == 0
    points, seen = [], dict.fromkeys(CHANGING, 0)
    for call in tracing.calls(scratch / "trace", scratch):
        if call.name not in seen:
            continue
        seen[call.name] += 1
        if call.name == "openat" and "O_CREAT" not in call.flags:
            continue
        points.append(Point(case, call.name, seen[call.name], 0))
        if not call.failed:  # one that fails anyway, as making a directory that is there, may as well fail otherwise
            points += [replace(points[-1], number=number) for number in REFUSALS]
    return points


def _same(found: Mapping[str, Mapping[str, Tensor]], value: int) -> bool:
    expected = committing.tensors(value)
    return found.keys() == expected.keys() and all(
        found[name].keys() == group.keys() and all(found[name][key].equal(tensor) for key, tensor in group.items())
        for name, group in expected.items()
    )


def _temporaries(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.startswith(".tmp")] if root.exists() else []


def _is_old_or_new(case: Case, root: Path) -> bool:
    """What loads is bitwise the state before the save or the one after it; returns whether it is the new one."""
    found, passed_over = checkpoint.load_newest(root)
    assert len(passed_over) <= (case.name == "again"), passed_over
    if found is None:
        assert case.old is None, "nothing loads any more"
        return False
    step, value = int(found.path.name[5:]), int(found.state["value"] * 3 + 0.5)
    assert found.state["step"] == step
    new = step == case.step
    assert step == (case.step if new else case.old)
    assert _same(found.tensors, case.value if new else step), f"step {step} holds other weights"
    assert new or value == step
    for path in checkpoint.list_checkpoints(root)[len(passed_over) :]:
        verify(path)
    return new


def _pointers_hold(case: Case, root: Path, *, new: bool) -> None:
    """`last.json` and `best.json` are whole, and each names a checkpoint that is there and verifies."""
    for name in ("last.json", "best.json"):
        if not (root / name).exists():
            assert case.old is None, f"{name} is gone"
            continue
        step = json.loads((root / name).read_text(encoding="utf-8"))["step"]
        assert step in (case.step, case.old, 1, 2)
        if new or step != case.step:
            verify(root / f"step-{step:08d}")


def _check(case: Case, root: Path, code: int, number: int, removing: bool) -> None:
    """All that must hold after a save that ended with `code` because of `number` (0: killed)."""
    new = _is_old_or_new(case, root)
    _pointers_hold(case, root, new=new)
    if number == 0:
        assert code == -signal.SIGKILL
    else:
        # A removal that fails may be passed over: it comes after the commit, and what is left has a name that nobody
        # loads and that the next start sweeps away. Any other failure must be told, and leave nothing.
        assert code == number or (removing and new and code == 0), f"the error became exit code {code}"
        assert removing or not _temporaries(root), "temporaries are left behind"
    checkpoint.remove_stale_temporaries(root)
    assert not _temporaries(root)
    assert _is_old_or_new(case, root) == new
    after = case.step + 1
    committing.save(root, after, after, best=after)
    found, _ = checkpoint.load_newest(root)
    assert found is not None
    assert found.path.name == f"step-{after:08d}"
    assert _same(found.tensors, after)
    assert not _temporaries(root)
    for name in ("last.json", "best.json"):
        assert json.loads((root / name).read_text(encoding="utf-8"))["step"] == after


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_every_system_call(roots: Mapping[str, Path], tmp_path: Path, campaign: Callable[..., Any]) -> None:
    tracing.needs_strace()
    points = []
    for case in CASES:
        (tmp_path / case.name).mkdir()
        points += _points(case, _copied(roots[case.name], tmp_path / case.name / "root"), tmp_path / case.name)
    fault = "kill -9, disk full or I/O error at a system call of a save"
    key, quick, full = "SYSCALLS", 12, len(points)
    assert full > 200, "the save makes fewer calls than it must"
    for trial in campaign(fault, key=key, quick=quick, full=full):
        with trial:
            point = chosen(points, trial, count(key, quick, full))
            here = tmp_path / f"{trial.number}"
            here.mkdir()
            root = _copied(roots[point.case.name], here / "root")
            what = f"error={errno.errorcode[point.number]}" if point.number else "signal=SIGKILL"
            process = committing.launch(root, point.case.step, point.case.value, point.case.best)
            inject = ("-e", f"trace={point.name}", "-e", f"inject={point.name}:{what}:when={point.nth}")
            with tracing.attached(process.pid, here / "trace", *inject):
                code = finished(process)
            try:
                _check(point.case, root, code, point.number, point.name in REMOVING)
            except Exception as error:
                raise AssertionError(f"{point.case.name}: {point.name} no. {point.nth}, {what}: {error}") from error
            shutil.rmtree(here)


def test_at_fail_points_without_a_tracer(
    roots: Mapping[str, Path], tmp_path: Path, campaign: Callable[..., Any]
) -> None:
    """The same where nothing can be traced: Python's own functions raise, or kill the process."""
    points = []
    for case in CASES:
        calls = _calls_of(case, _copied(roots[case.name], tmp_path / f"{case.name}-whole"))
        for nth, name in enumerate(calls):
            there = nth == 0 and case.old is not None  # the root; making it again fails anyway
            points += [(case, nth, number, name in REMOVING) for number in (0, *(() if there else REFUSALS))]
    key, quick, full = "FAIL_POINTS", 6, len(points)
    assert full > 100, "the save makes fewer calls than it must"
    for trial in campaign("kill -9 or error at a fail point of a save", key=key, quick=quick, full=full):
        with trial:
            case, nth, number, removing = chosen(points, trial, count(key, quick, full))
            root = _copied(roots[case.name], tmp_path / f"{trial.number}")
            arm = partial(committing.arm, nth, number)
            process = committing.launch(root, case.step, case.value, case.best, before=arm)
            _check(case, root, finished(process), number, removing)
            shutil.rmtree(root)


def _calls_of(case: Case, root: Path) -> list[str]:
    """The fail points that an undisturbed save passes, by name and in order."""
    log = root.with_name(f"{root.name}-calls")
    process = committing.launch(root, case.step, case.value, case.best, before=partial(committing.record, log))
    assert finished(process) == 0
    return log.read_text(encoding="utf-8").splitlines()


def test_damaged_newer_steps_do_not_push_out_the_one_that_was_saved(tmp_path: Path) -> None:
    """The two newest were damaged, so the run fell back and is still behind them when it saves."""
    root = tmp_path / "root"
    for step in (1, 3, 4):
        committing.save(root, step, step, best=1, keep=9)
    for step in (3, 4):
        (root / f"step-{step:08d}" / "model.safetensors").write_bytes(b"")
    committing.save(root, 2, 2, best=1)
    found, _ = checkpoint.load_newest(root)
    assert found is not None
    assert found.path.name == "step-00000002"
