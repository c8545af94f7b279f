"""An audit of a child: what a command does that a hostile file must never make it do, and what it costs.

`begin` is called in the child before its command (`forks.launch(before=functools.partial(watch.begin, ...))`). It notes
violations as lines in a file; the last line, written as the child ends, is its own CPU time and the growth of its
memory.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import sys
import tempfile
import threading
from pathlib import Path
from time import process_time
from typing import Any

TOKEN = "canary_was_here"  # in every payload: source or text with it must never be compiled
_SPAWNS = frozenset({"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"})
_REACHES = frozenset({"socket.connect", "socket.getaddrinfo", "urllib.Request", "ftplib.connect", "smtplib.connect"})
_CHANGES = {"os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.link": 2, "os.symlink": 2}
_PROGRAMS = frozenset({"git", "uname"})  # a run notes its commit; platform asks for the processor
_HANDED_OVER = re.compile(
    r".*/multiprocessing/(queues|connection|managers)\.py$"
)  # where data workers' pickles are read
_TEMPORARY = tempfile.gettempdir()
# tempfile's names, its trial of a folder, where torch would put compiled code, and what is no file
_SCRATCH = re.compile(
    rf"{re.escape(_TEMPORARY)}/(tmp|torchinductor_|pymp-|[a-z0-9_]{{8}}$)|/dev/(null|shm/)|/proc/self/"
)


def begin(report: Path, hostile: Path, may_write: tuple[Path, ...], memory: int, imports: tuple[str, ...] = ()) -> None:
    """Watch from here on, once `imports` are done, so that their time is not counted.

    `hostile` holds the attacker's files; `memory` is what this process may add to its own.
    """
    for module in imports:
        importlib.import_module(module)
    descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.dont_write_bytecode = True
    own, busy = tuple(map(str, may_write)), threading.local()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + memory, resource.RLIM_INFINITY))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, process_time()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if getattr(busy, "synchronized_time", False):  # what a look itself causes
            return
        busy.now = True
        try:
            found = _violation(event, arguments, str(hostile), own)
            if found:
                os.write(descriptor, f"{event} {found}\n".encode("utf-8", "backslashreplace"))
        finally:
            busy.now = False

    leave, process = os._exit, os.getpid()

    def end(code: int) -> None:
        if os.getpid() != process:  # a data worker
            leave(code)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        os.write(descriptor, json.dumps({"seconds": process_time() - began, "grown": grown}).encode())
        leave(code)

    os._exit = end  # type: ignore[assignment]
    sys.addaudithook(hook)


def _violation(event: str, arguments: tuple[Any, ...], hostile: str, own: tuple[str, ...]) -> str | None:
    shown = repr(arguments)[:200]
    if event in _SPAWNS or event in _REACHES:
        return None if event == "socket.connect" and str(arguments[1]).startswith(f"{_TEMPORARY}/pymp-") else shown
    if event == "subprocess.Popen":
        command = [os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in arguments[1]]
        expected = command[:1] == [sys.executable] and command[1:4] == ["-P", "-m", "bigmodel.models.weights.unpickle"]
        return None if expected or command[0] in _PROGRAMS else shown
    if event == "exec":
        file = getattr(arguments[0], "co_filename", "")
        return shown if file.startswith(hostile) else None
    if event == "compile":
        source = arguments[0]
        text = source.decode("utf-8", "replace") if isinstance(source, bytes) else str(source)
        return shown if TOKEN in text or str(arguments[1]).startswith(hostile) else None
    if event == "import":
        return shown if str(arguments[0]).startswith("attacker") or str(arguments[1]).startswith(hostile) else None
    if event == "ctypes.dlopen":
        return shown if arguments[0] is not None and str(arguments[0]).startswith(hostile) else None
    if event == "pickle.find_class":
        return None if _reads_a_worker() else shown
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return shown if writes and isinstance(path, (str, bytes, os.PathLike)) and not _within(path, own) else None
    if event in _CHANGES:
        path = arguments[1] if event in ("os.link", "os.symlink") else arguments[0]
        folder = arguments[_CHANGES[event]] if event != "os.symlink" else -1
        return None if _within(path, own, folder) else shown
    return None


def _reads_a_worker() -> bool:
    frame = sys._getframe()
    while frame is not None:
        if _HANDED_OVER.match(frame.f_code.co_filename):
            return True
        frame = frame.f_back
    return False


def _within(path: Any, own: tuple[str, ...], folder: int = -1) -> bool:
    if isinstance(path, int):
        return True
    beside = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()
    whole = os.path.normpath(os.path.join(beside, os.fsdecode(path)))
    return bool(_SCRATCH.match(whole)) or any(whole == place or whole.startswith(place + "/") for place in own)
