"""A system that grants no more memory, threads or processes: exit code 6 and a line, wherever it is met."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import pytest

from bigmodel.runtime.exhaustion import describe_exhaustion
from conftest import TINY, Answer, is_quiet

EXHAUSTED = (
    MemoryError(),
    RuntimeError("can't start new thread"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("std::bad_alloc"),
    RuntimeError("Resource temporarily unavailable"),
    RuntimeError("could not create a primitive"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
    RuntimeError("unable to mmap 400 bytes from file </torch_1_2_3>: Cannot allocate memory (12)"),
    ImportError("libtiff.so.6: failed to map segment from shared object"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
)
OTHERS = (
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("could not create a primitive descriptor for the convolution forward propagation primitive"),
    ImportError("No module named 'soundfile'"),
    OSError(errno.ENOSPC, "No space left on device"),
    BlockingIOError(errno.EAGAIN, "write could not complete without blocking", 0),  # a pipe that is full
    ValueError("out of memory"),
)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}-{error}"[:40]


@pytest.mark.parametrize("error", EXHAUSTED, ids=_words)
def test_what_a_system_or_a_library_says_where_nothing_is_left(error: Exception) -> None:
    assert describe_exhaustion(error)


@pytest.mark.parametrize("error", OTHERS, ids=_words)
def test_other_errors_are_none_of_it(error: Exception) -> None:
    assert describe_exhaustion(error) is None


def _refuse(*_: object, **__: object) -> None:
    raise RuntimeError("can't start new thread")


def _run_with(cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> str:
    monkeypatch.setattr(owner, name, _refuse)
    answer = cli(*TINY, "listeners=[]", "device.threads=2", "save_every=1steps")
    (line,) = is_quiet(answer, code=6)
    assert "ulimit -u" in line
    return line


def test_no_thread_for_openmp(cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    """libgomp would end the process, with exit code 1 and a line of its own."""
    line = _run_with(cli, monkeypatch, threading.Thread, "start")
    assert line.startswith("out of memory or of threads before the model is made: the system grants 0 of 2")


def test_no_thread_for_a_save(cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    line = _run_with(cli, monkeypatch, futures.ThreadPoolExecutor, "submit")
    assert line.startswith("out of memory or of threads at step 1;")
    assert "batch_size" in line


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "export"])
def test_memory_that_runs_out_while_a_library_is_loaded(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def fails(_: str) -> None:
        raise ImportError("libtiff.so.6: failed to map segment from shared object")

    monkeypatch.setattr("bigmodel.cli._load_command", fails)
    words = () if command == "train" else ("run=gone", *(["input=gone"] * (command == "predict")))
    (line,) = is_quiet(cli(*words, verb=command), code=6)
    assert line.startswith("out of memory: ImportError: libtiff")


def test_a_job_that_cannot_be_forked_harms_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bigmodel.sweeps.engines import fork_server
    from bigmodel.sweeps.engines.job_context import JobContext

    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("os.fork", refused)
    (tmp_path / "jobs").mkdir()
    sent: list[dict[str, int]] = []
    monkeypatch.setattr(fork_server, "_send_event", lambda _, event: sent.append(event))
    fork_server._start(JobContext(str(tmp_path)), 3, {}, (), 1)
    assert sent == [{"job": 3, "code": 6}]
    assert "ulimit -u" in (tmp_path / "jobs" / "3.txt").read_text()
