"""What several test files share: commands run in this process, and one tiny trained run."""

from __future__ import annotations

import contextlib
import csv
import gc
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["campaign", "several_ranks"]

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: more threads than cores would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # where a test asks for two, they wait asleep


def slow_where(cases, is_slow):
    """Parameters of a test, those marked slow that `is_slow` holds for."""
    marked = [(case if isinstance(case, tuple) else (case,), is_slow(case)) for case in cases]
    return [pytest.param(*case, marks=pytest.mark.slow if slow else ()) for case, slow in marked]


def pytest_collection_finish() -> None:
    """What is loaded by now stays: collecting garbage among it, and as often as Python does, is a tenth of the time."""
    gc.freeze()
    gc.set_threshold(20_000)


TINY = ("device=cpu", "model=mlp", "model.hidden=[16]", "limit_batches=3", "epochs=2")
_TIMES = {"samples_per_s", "data_s", "step_s", "seconds"}
_OWN = ("BIGMODEL_DATA_DIR", "BIGMODEL_SIGNED_BY", "BIGMODEL_TRACEBACK", "BIGMODEL_SWEEP", "HYDRA_FULL_ERROR")


@dataclass(frozen=True)
class Answer:
    """What a command left: exit code, its two streams, and the directory it ran in."""

    code: int
    out: str
    err: str
    cwd: Path

    @property
    def run(self) -> Path:
        """The one run directory under outputs/."""
        return only_run(self.cwd)


def only_run(cwd: Path) -> Path:
    """The one run directory under `cwd`/outputs."""
    (found,) = cwd.glob("outputs/????-??-??/*")
    return found


@contextlib.contextmanager
def _process_state() -> Iterator[None]:
    """Leave signals, environment, argv, import path, directory, logging and torch as they were."""
    import torch

    from bigmodel.runtime.lazy_compiler import set_deterministic_algorithms

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    environment, argv, path, cwd = dict(os.environ), sys.argv, list(sys.path), os.getcwd()
    root = logging.getLogger()
    logs, level = list(root.handlers), root.level
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    strict = torch.are_deterministic_algorithms_enabled()
    try:
        for name in _OWN:
            os.environ.pop(name, None)
        yield
    finally:
        os.chdir(cwd)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv, sys.path[:] = argv, path
        root.handlers[:] = logs
        root.setLevel(level)
        torch.set_num_threads(threads)
        torch.set_rng_state(generator)
        set_deterministic_algorithms(strict)


def call(*words: str, cwd: Path, verb: str = "train") -> Answer:
    """A console script's words, run in this process as the script would run them."""
    from bigmodel.cli import _run_guarded

    out, err = io.StringIO(), io.StringIO()
    with _process_state(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        os.chdir(cwd)
        sys.argv = [f"bigmodel-{verb}", *words]
        try:
            code = _run_guarded(verb, words)
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    return Answer(code, out.getvalue(), err.getvalue(), cwd)


def python(*words: str, cwd: Path, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """A Python of our own, without this process's settings."""
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, **options
    )


def start(*words: str, cwd: Path, **options: Any) -> subprocess.Popen[bytes]:
    """`bigmodel-train` as a process to be signalled."""
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    command = [sys.executable, "-m", "bigmodel", "train", *words]
    return subprocess.Popen(command, cwd=cwd, env=environment, **options)


def records(run: Path) -> list[dict[str, Any]]:
    """`metrics.jsonl` without what a clock measured."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in _TIMES} for line in lines]


def fingerprint(run: Path) -> dict[str, str]:
    """SHA-256 of every tensor file of the newest checkpoint, with its step's name."""
    newest = max((run / "checkpoints").glob("step-*"))
    files = sorted(newest.glob("*.safetensors"))
    return {f"{newest.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def contents(run: Path) -> dict[str, Any]:
    """All that a run has left, by file, without what differs between two runs of one command: times and places.

    That the times are there, as numbers, is part of it.
    """
    return {
        str(path.relative_to(run)): _content(path)
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in (".lock", "train.log", "report.html")
    }


def _content(path: Path) -> Any:
    if path.name == "metrics.jsonl":
        return records(path.parent)
    if path.name == "metrics.csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: text for key, text in row.items() if key not in _TIMES} for row in csv.DictReader(file)]
    if path.name in ("summary.json", "environment.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        places = ("directory", "time", "command", "git")
        return {key: type(value) if key in _TIMES else value for key, value in found.items() if key not in places}
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_quiet(answer: Answer, *, code: int) -> list[str]:
    """The error lines of a failure that must be plain: right code, no traceback, nothing made."""
    assert "Traceback" not in answer.err + answer.out
    assert "internal error" not in answer.err
    assert answer.code == code, answer.err
    lines = answer.err.splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines), lines
    return [line.removeprefix("error: ") for line in lines]


@pytest.fixture(scope="session", autouse=True)
def _no_pages() -> Iterator[None]:
    """Runs and sweeps end as they do without matplotlib: a page takes longer than a tiny run."""
    from bigmodel.runs.report import files

    can_draw, files.can_draw = files.can_draw, lambda: False
    yield
    files.can_draw = can_draw


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Answer]:
    """`cli(*words, cwd=..., verb=...)`; by default in this test's own empty directory."""

    def run(*words: str, cwd: Path | None = None, verb: str = "train") -> Answer:
        if cwd is None:
            cwd = tmp_path / "here"
            cwd.mkdir(exist_ok=True)
        return call(*words, cwd=cwd, verb=verb)

    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """A finished run of six steps. To be read only: copy it before changing it."""
    answer = call(*TINY, "log_every=2steps", cwd=tmp_path_factory.mktemp("tiny"))
    assert answer.code == 0, answer.err
    return answer
