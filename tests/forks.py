"""Command lines in processes of their own that need not import torch: forked from a server that has it loaded.

Each is a real process (its own PID, session, signals, files), ready in some milliseconds instead of two seconds, so
that thousands can be killed.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from bigmodel.runs.report import files

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # as a command sets it, before torch is loaded
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        *("torch", "numpy", "optuna"),
        *(
            "bigmodel.cli",
            "bigmodel.commands.resume",
            "bigmodel.sweeps.by_hydra",
            "bigmodel.sweeps.engines.job_process",
        ),
    ]
)
_OWN = ("BIGMODEL_DATA_DIR", "BIGMODEL_TRACEBACK", "BIGMODEL_SWEEP", "HYDRA_FULL_ERROR")


def launch(
    *words: str,
    cwd: Path,
    output: Path | None = None,
    verb: str = "train",
    held: bool = False,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], object] | None = None,
) -> ForkServerProcess:
    """A command line as a child: `pid`, `exitcode` (negative for a signal), `join(timeout)`, `kill()`.

    Both streams go to the file `output` (else nowhere). With `held` the child stops itself before its first line, until
    SIGCONT: time to attach a tracer. `before` is called in the child first; it must be importable (a limit to set).
    """
    process = _server.Process(
        target=_child, args=(words, os.fspath(cwd), output, verb, held, dict(environment or {}), before), daemon=False
    )
    process.start()
    return process


def run_module(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """For `subprocess.run` of `python -P -m MODULE SOURCE TARGET`: the same, forked; errors go to a file by TARGET."""
    *_, module, source, target = command
    said = Path(f"{target}.said")
    process = _server.Process(target=_module, args=(module, [source, target], said), daemon=False)
    process.start()
    return subprocess.CompletedProcess(command, finished(process), "", said.read_text())


def _module(name: str, arguments: list[str], said: Path) -> None:
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT, 0o644), 2)
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__")


def finished(process: ForkServerProcess, seconds: float = 60) -> int:
    """Wait for the end and return the exit code; a process that hangs is killed and fails the test."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"still running after {seconds} s")
    return process.exitcode


def until(condition: Callable[[], object], process: ForkServerProcess, seconds: float = 60) -> bool:
    """Wait until the condition holds or the process has ended; whether the condition came to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.exitcode is not None:
            return bool(condition())
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.002)
    return True


def _child(
    words: tuple[str, ...],
    cwd: str,
    output: Path | None,
    verb: str,
    held: bool,
    environment: dict[str, str],
    before: Callable[[], object] | None,
) -> None:
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests themselves run under
    multiprocessing.set_start_method(None, force=True)  # its data workers start as in a process that was not forked
    for name in _OWN:
        os.environ.pop(name, None)
    os.environ.update(environment)
    os.chdir(cwd)
    sink = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(sink, stream)
    sys.argv = [f"bigmodel-{verb}", *words]
    files.can_draw = lambda: False  # a page takes longer than a tiny run, and has tests of its own
    if before is not None:
        before()
    if held:
        os.kill(os.getpid(), signal.SIGSTOP)
    from bigmodel.cli import _run_guarded

    code = 1
    try:
        code = _run_guarded(verb, words)
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
