"""Terminals that go away, are none, or are real; clocks that jump: training goes on, and files stay plain."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from campaign import SEED
from conftest import contents, fingerprint, only_run, records
from forks import finished, launch

pytestmark = pytest.mark.slow  # make test-all

RUN = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[8]", "limit_batches=5", "epochs=4")
RUN = (*RUN, "log_every=1steps", "save_every=3steps")
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long jump(void) {  /* up to a year to either side, another at each look */
    static unsigned state = 0;
    if (!state) state = atoi(getenv("CLOCK_SEED")) + 1;
    state = state * 1103515245u + 12345u;
    return (long)(state >> 8) % 63072000 - 31536000;
}
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*own)(clockid_t, struct timespec *);
    if (!own) own = dlsym(RTLD_NEXT, "clock_gettime");
    int status = own(id, at);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) at->tv_sec += jump();
    return status;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("unbroken")
    assert finished(launch(*RUN, cwd=cwd)) == 0
    return only_run(cwd)


def _same_and_plain(run: Path, unbroken: Path) -> None:
    """The bits of the unbroken run, and no control code in any file of text."""
    assert contents(run) == contents(unbroken)
    _plain(run)


def _plain(run: Path) -> None:
    assert json.loads((run / "summary.json").read_text())["state"] == "done"
    for path in run.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            text = path.read_text(encoding="utf-8")
            assert all(letter.isprintable() or letter == "\n" for letter in text), path


_ELSEWHERE = {name: value for name, value in os.environ.items() if name != "BIGMODEL_DATA_DIR"}  # as `launch` has it


def _python(*words: str, cwd: Path, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A Python started anew; what follows in the shell's grammar is done to its streams."""
    command = ["bash", "-c", f'exec "$@" {shell}', "bash", sys.executable, "-m", "bigmodel", "train", *words]
    return subprocess.run(command, cwd=cwd, env=_ELSEWHERE | environment, capture_output=True, timeout=60)


STREAMS = (">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full")


@pytest.mark.slow
def test_streams_that_are_closed_or_full(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("stdin, stdout or stderr closed or full", key="STREAMS", quick=1, full=len(STREAMS)):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            shell = STREAMS[(trial.number + SEED) % len(STREAMS)]
            done = _python(*RUN, cwd=cwd, shell=shell)
            assert done.returncode == 0, (shell, done.stderr)
            assert done.stderr == b"", shell
            _same_and_plain(only_run(cwd), unbroken)


def test_a_reader_that_goes_away(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("the reader of the output goes away (| head)", key="HEAD", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            os.mkfifo(cwd / "pipe")
            lines = trial.random.randint(0, 12)

            def head(pipe: Path = cwd / "pipe", lines: int = lines) -> None:
                with pipe.open("rb", buffering=0) as reader:
                    for _ in range(lines):
                        reader.readline()

            thread = threading.Thread(target=head)
            thread.start()
            assert finished(launch(*RUN, cwd=cwd, output=cwd / "pipe")) == 0
            thread.join()
            _same_and_plain(only_run(cwd), unbroken)


def test_a_terminal_is_drawn_on_and_files_are_not(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("a terminal with control codes", key="TERMINAL", quick=1, full=10):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            ours, theirs = os.openpty()
            kind = trial.random.choice(("xterm-256color", "linux", "dumb"))
            name = Path(os.ttyname(theirs))
            process = launch(*RUN, cwd=cwd, output=name, environment={"TERM": kind, "COLUMNS": "60"})
            drawn = bytearray()

            def read(ours: int = ours, drawn: bytearray = drawn) -> None:
                while block := os.read(ours, 4096):
                    drawn.extend(block)
                    if b"train longer  bigmodel-train" in drawn:
                        return

            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            assert finished(process) == 0
            thread.join(10)
            assert not thread.is_alive(), drawn
            assert (b"\x1b[" in drawn) == (kind != "dumb")
            assert b"best so far" in drawn
            _same_and_plain(only_run(cwd), unbroken)
            os.close(ours)
            os.close(theirs)


def test_an_ascii_locale(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("an ASCII locale, names beyond it", key="ASCII", quick=1, full=4):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            name = ("läufe ☃", "plain")[trial.number % 2]
            pure = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
            helped = {"LC_ALL": "C", "PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii"}
            strict = trial.number // 2 % 2 == 0  # Python helps itself with UTF-8 unless it is told not to
            done = _python(*RUN, f"output_dir={name}", cwd=cwd, **(pure if strict else helped))
            assert (done.stdout + done.stderr).isascii()
            if strict and name != "plain":  # then these bytes are no letters, and a config could not hold them
                assert done.returncode == 2
                (line,) = done.stderr.decode().splitlines()
                assert line.startswith("error: output_dir=l")
                assert "LC_ALL=C.UTF-8" in line
                assert list(cwd.iterdir()) == []
                continue
            assert done.returncode == 0, done.stderr
            (run,) = cwd.glob(f"{name}/*/*")
            assert fingerprint(run) == fingerprint(unbroken)  # other files hold output_dir
            assert records(run) == records(unbroken)
            _plain(run)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes the wall clock of a process jump at each look, and leaves the monotonic one."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    place = tmp_path_factory.mktemp("clock")
    (place / "clock.c").write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"], cwd=place, check=True)
    return place / "clock.so"


@pytest.mark.slow
def test_the_clock_jumps(campaign: Callable, unbroken: Path, clock: Path, tmp_path: Path) -> None:
    for trial in campaign("the clock jumps by months at each look", key="CLOCK", quick=1, full=10):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            seed = str(trial.random.randrange(10**6))
            done = _python(*RUN, cwd=cwd, LD_PRELOAD=str(clock), CLOCK_SEED=seed)
            assert done.returncode == 0, done.stderr
            run = only_run(cwd)
            days = {line[:10] for line in (run / "train.log").read_text().splitlines()}
            assert len(days) > 3, "the clock did not jump"
            _same_and_plain(run, unbroken)
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            assert [line["step"] for line in lines[:-1]] == sorted(line["step"] for line in lines[:-1])
            for line in lines:
                durations = [line[key] for key in ("data_s", "step_s", "seconds") if key in line]
                assert all(0 <= seconds < 60 for seconds in durations), line
                assert line.get("samples_per_s", 1) > 0, line
            assert 0 < json.loads((run / "summary.json").read_text())["seconds"] < 60


def test_files_dated_in_any_order(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    """The newest checkpoint is the one of the highest step, whatever the clock said when each was written."""
    for trial in campaign("checkpoints dated out of order, resume", key="DATES", quick=1, full=20):
        with trial:
            run = tmp_path / str(trial.number)
            shutil.copytree(unbroken, run)
            shutil.rmtree(max((run / "checkpoints").glob("step-*")))
            dice = random.Random(trial.number)
            for path in [*run.rglob("*"), run]:
                os.utime(path, (0, dice.randrange(1 << 32)))
            for path, date in zip(sorted((run / "checkpoints").glob("step-*"), reverse=True), (1, 9), strict=False):
                os.utime(path, (0, date << 28))
            assert finished(launch(f"resume={run}", cwd=tmp_path, output=tmp_path / f"said{trial.number}")) == 0
            first = (tmp_path / f"said{trial.number}").read_text().splitlines()[0]
            assert first.startswith("resumes at step 18:"), first
            _same_and_plain(run, unbroken)
