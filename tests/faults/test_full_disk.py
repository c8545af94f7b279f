"""A disk that is really full: one line tells, older checkpoints stay whole, and with room made the run goes on."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bigmodel.runs import checkpoint
from bigmodel.runs.manifest import verify
from conftest import contents, fingerprint, records
from forks import finished, launch
from mounts import Mount, mounted
from tracing import attached, needs_strace

pytestmark = pytest.mark.slow  # make test-all

RUN = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[64]", "limit_batches=20", "listeners=[]")
SAVES = (*RUN, "epochs=0.6", "save_every=1steps", "keep=99", "evaluate_every=5steps")  # fills the disk with saves
LINES = (*RUN, "epochs=8", "save_every=4epochs", "evaluate_every=4epochs", "log_every=1steps")  # with lines
PAGE = 4096  # what a tmpfs counts in


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    runs = {}
    for words in (SAVES, LINES):
        cwd = tmp_path_factory.mktemp("unbroken")
        assert finished(launch(*words, cwd=cwd)) == 0
        (runs[words],) = cwd.glob("outputs/*/*")
    return runs


def _failed(mount: Mount, said: Path) -> tuple[Path, str]:
    """The run and the one line of a run that filled its disk; what it left is whole and as the line says."""
    (line,) = said.read_text().splitlines()
    assert line.startswith(f"error: {mount.path}"), line
    room = r"\([\d.]+ kB needed for a checkpoint, [\d.]+ [kM]?B free( in \d+ files)?\)"
    assert re.search(rf": No space left on device {room}; ", line), line
    (run,) = mount.inside.glob("*/*")
    saved = checkpoint.list_checkpoints(run / "checkpoints")
    for path in saved:
        verify(path)
    last = f"last saved step: {int(saved[0].name[5:])}" if saved else "no step was saved"
    assert last in line, line
    assert not list(run.rglob(".tmp-*")), "half-made files take the room that is missing"
    return run, line


def _fills(trial, words: tuple[str, ...], options: str, room: str, whole: Path, cwd: Path) -> str:
    """Run until the disk is full, make room, resume. Returns the line that told."""
    cwd.mkdir()
    with mounted(cwd / "disk", options) as mount:
        process = launch(*words, f"output_dir={mount.path}", cwd=cwd, output=cwd / "said", before=mount.enter)
        assert finished(process) == 5, (options, (cwd / "said").read_text())
        run, line = _failed(mount, cwd / "said")
        mount.remount(room)
        there = mount.path / run.relative_to(mount.inside)
        assert f"resume={there}" in line
        again = launch(f"resume={there}", cwd=cwd, output=cwd / "again", before=mount.enter)
        assert finished(again) == 0, (options, (cwd / "again").read_text())
        assert (fingerprint(run), records(run)) == (fingerprint(whole), records(whole))
        assert contents(run)["summary.json"] == contents(whole)["summary.json"]
    return line


def test_the_disk_fills_in_a_save(campaign: Callable, unbroken: dict, tmp_path: Path) -> None:
    for trial in campaign("the disk fills during a save, resume with room", key="FULL_DISK", quick=1, full=60):
        with trial:
            bytes_out = trial.number % 2 == 0  # no bytes left, or no files
            options = f"size={trial.random.randint(12, 90) * PAGE}"
            options = options if bytes_out else f"nr_inodes={trial.random.randint(14, 60)},size=9m"
            _fills(trial, SAVES, options, "size=9m,nr_inodes=9999", unbroken[SAVES], tmp_path / str(trial.number))


def test_the_disk_fills_in_a_line(campaign: Callable, unbroken: dict, tmp_path: Path) -> None:
    for trial in campaign(
        "the disk fills during a log or metrics line, resume with room", key="FULL_LOG", quick=1, full=40
    ):
        with trial:
            options = f"size={trial.random.randint(9, 34) * PAGE}"
            _fills(trial, LINES, options, "size=9m", unbroken[LINES], tmp_path / str(trial.number))


@pytest.mark.slow
def test_the_disk_refuses_to_sync(campaign: Callable, unbroken: dict, tmp_path: Path) -> None:
    needs_strace()
    words = {"EIO": "Input/output error", "EDQUOT": "Disk quota exceeded", "EROFS": "Read-only file system"}
    for trial in campaign("the disk refuses a sync with EIO, EDQUOT or EROFS, resume", key="SYNC", quick=1, full=60):
        with trial:
            error = list(words)[trial.number % 3]
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            process = launch(*SAVES, cwd=cwd, output=cwd / "said", held=True)
            when = trial.random.randint(8, 11)  # 7 come before training, 12 are of a save; counted for each thread
            inject = ("-e", "trace=fsync", "-e", f"inject=fsync:error={error}:when={when}+")
            with attached(process.pid, cwd / "trace", *inject):
                assert finished(process) == 5, (when, (cwd / "said").read_text())
            (line,) = (cwd / "said").read_text().splitlines()
            (run,) = cwd.glob("outputs/*/*")
            needed = r" \([\d.]+ kB needed for a checkpoint\)" if error == "EDQUOT" else ""
            assert re.match(rf"error: {re.escape(str(run.relative_to(cwd)))}: {words[error]}{needed}; ", line), line
            for path in checkpoint.list_checkpoints(run / "checkpoints"):
                verify(path)
            if (run / "config.yaml").exists():
                assert finished(launch(f"resume={run}", cwd=cwd)) == 0
                assert (fingerprint(run), records(run)) == (fingerprint(unbroken[SAVES]), records(unbroken[SAVES]))
                assert contents(run)["summary.json"] == contents(unbroken[SAVES])["summary.json"]


def test_a_file_larger_than_allowed(campaign: Callable, tmp_path: Path) -> None:
    """Where there are no private mounts: the limit on a file's size, as quotas and old file systems have one."""
    words = (*RUN, "epochs=0.2", "save_every=1steps")
    for trial in campaign("a file may not grow beyond a limit", key="FILE_LIMIT", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            size = trial.random.choice((8_000, 12_000, 18_000))  # below the weights, below the manifest's limits
            process = launch(*words, cwd=cwd, output=cwd / "said", before=partial(_limit, size))
            assert finished(process) == 5, (cwd / "said").read_text()
            (line,) = (cwd / "said").read_text().splitlines()
            (run,) = cwd.glob("outputs/*/*")
            assert re.match(rf"error: {run.relative_to(cwd)}: .*File too large.*; no step was saved", line), line
            assert finished(launch(f"resume={run}", cwd=cwd)) == 0
            assert next(iter(fingerprint(run))).startswith("step-00000004")


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
