"""A program in a terminal of its own, as somebody at the keyboard has it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic


class Terminal:
    """Keys go in, what is drawn comes out."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """The first match in what is drawn from now on."""
        drawn, end = "", monotonic() + seconds
        while monotonic() < end:
            if select.select([self._descriptor], [], [], 0.1)[0]:
                drawn += os.read(self._descriptor, 1 << 16).decode("utf-8", "replace")
                if found := re.search(pattern, drawn):
                    return found
        raise AssertionError(f"no {pattern!r} in {drawn!r}")


@contextmanager
def terminal(words: Sequence[str], cwd: Path) -> Iterator[Terminal]:
    """Run a command in a new terminal; it is ended afterwards."""
    process, descriptor = pty.fork()
    if process == 0:
        os.chdir(cwd)
        os.execvpe(words[0], list(words), {**os.environ, "TERM": "dumb", "LC_ALL": "C.UTF-8", "HOME": str(cwd)})
    try:
        yield Terminal(descriptor)
    finally:
        os.kill(process, signal.SIGKILL)
        os.close(descriptor)
        os.waitpid(process, 0)
