"""strace on a process that waits for it: what it asks of the kernel, or what if the kernel refuses or kills it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_CALL = re.compile(r"^(?P<pid>\d+)\s+(?P<name>\w+)\((?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+)\s+<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_OPENED = re.compile(r"<(/[^>]*)>")  # what -y writes after a descriptor
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Call:
    """One system call. `paths` are absolute, descriptors resolved; `failed` is the error's name or empty."""

    thread: str
    name: str
    paths: tuple[str, ...]
    flags: str
    failed: str


@contextlib.contextmanager
def attached(pid: int, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Trace a process that has stopped itself, and let it go on. The tracer ends with it, and is waited for."""
    _until(lambda: _status(pid, "State").startswith("T"))
    command = ["strace", "-f", "-y", "-qq", "-o", os.fspath(log), *options, "-p", str(pid)]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(lambda: _status(pid, "TracerPid") == str(tracer.pid) or tracer.poll() is not None)
    os.kill(pid, signal.SIGCONT)
    try:
        yield tracer
        tracer.wait(timeout=20)
    finally:
        tracer.kill()
        tracer.wait()


def calls(log: Path, cwd: Path) -> Iterator[Call]:
    """The traced calls in the order in which they ended, those that another thread interrupted put together."""
    begun: dict[tuple[str, str], str] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _CALL.match(line):
            name, rest = match["name"], match["rest"]
            if rest.endswith("<unfinished ...>"):
                begun[match["pid"], name] = rest.removesuffix("<unfinished ...>")
                continue
        elif match := _RESUMED.match(line):
            name = match["name"]
            rest = begun.pop((match["pid"], name)) + match["rest"]
        else:
            continue
        yield _call(match["pid"], name, rest, cwd)


def _call(thread: str, name: str, rest: str, cwd: Path) -> Call:
    arguments, _, result = rest.rpartition(") = ") if ") = " in rest else rest.rpartition(" = ")
    failed = result.split()[1] if result.startswith("-1 ") else ""
    if name.startswith(("write", "pwrite", "fsync", "fdatasync", "ftruncate", "fchmod")):
        return Call(thread, name, tuple(_OPENED.findall(arguments)[:1]), "", failed)
    paths, base = [], cwd
    for part in re.split(r", (?=\"|AT_FDCWD|\d+<)", arguments):
        opened, quoted = _OPENED.search(part.split('"')[0]), _QUOTED.search(part)
        if opened is not None:
            base = Path(opened[1])
        if quoted is not None:
            paths.append(os.path.normpath(base / quoted[1]))
            base = cwd
    flags = arguments.rpartition('"')[2].strip(", ")
    return Call(thread, name, tuple(paths), flags, failed)


@functools.cache
def _refusal() -> str:
    """Why no process can be traced here; empty if one can."""
    if shutil.which("strace") is None:
        return "needs strace"
    sleeper = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 19)"])
    try:
        with attached(sleeper.pid, Path(os.devnull), "-e", "trace=rename") as tracer:
            pass
        return "strace may not attach to a process here" if tracer.returncode else ""
    finally:
        sleeper.kill()
        sleeper.wait()


def needs_strace() -> None:
    """Skip the test where nothing can be traced."""
    if reason := _refusal():
        pytest.skip(reason)


def _status(pid: int, key: str) -> str:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(f"{key}:")), "")


def _until(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "the tracer never came"
        time.sleep(0.001)
