"""A terminal to train on: what a command draws there, as it stands on the screen."""

from __future__ import annotations

import contextlib
import os
import re
import termios
import time
from collections.abc import Callable
from pathlib import Path

from bigmodel.formatting import columns_of
from forks import ForkServerProcess, launch

_PART = re.compile(r"\x1b\[(\d*;?\d*)([A-Za-z])|([\r\n])|([^\r\n\x1b]+)")


class Screen:
    """As much of a terminal as is needed: lines, a cursor, colors that do not count, clearing below the cursor."""

    def __init__(self, columns: int) -> None:
        self.columns, self.lines, self.wrapped = columns, [""], set[str]()
        self.drawn: list[str] = []  # all that was ever written, in order
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        for argument, code, control, written in _PART.findall(text):
            if control == "\r":
                self._column = 0
            elif control == "\n":
                self._row += 1
                self.lines += [""] * (self._row == len(self.lines))
            elif written:
                self.drawn.append(written)
                before = self.lines[self._row][: self._column].ljust(self._column)
                self.lines[self._row] = before + written + self.lines[self._row][self._column + len(written) :]
                self._column += len(written)
                if columns_of(before + written) >= self.columns:
                    self.wrapped.add(before + written)
            elif code == "J":
                self.lines[self._row :] = [self.lines[self._row][: self._column]]
            else:
                assert code == "m", (argument, code)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


class Training:
    """`bigmodel-train`, or another command, as a child that has a terminal of this size."""

    def __init__(
        self,
        *words: str,
        cwd: Path,
        columns: int = 80,
        before: Callable[[], object] | None = None,
        verb: str = "train",
        **environment: str,
    ) -> None:
        self.screen, self.raw, self._began = Screen(columns), b"", time.monotonic()
        self._ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        os.set_blocking(self._ours, False)
        environment = {"TERM": "xterm-256color", "LC_ALL": "en_US.UTF-8", "COLUMNS": "", "NO_COLOR": "1", **environment}
        self.process: ForkServerProcess = launch(
            *words, cwd=cwd, output=Path(os.ttyname(theirs)), verb=verb, environment=environment, before=before
        )
        self._theirs = theirs

    def until(self, condition: Callable[[str], object], seconds: float = 60) -> float:
        """Wait until the screen's text satisfies the condition; return the seconds since the start."""
        deadline = time.monotonic() + seconds
        while not condition(self._read().text):
            assert time.monotonic() < deadline, self.screen.text
            assert self.process.exitcode is None or condition(self._read().text), self.screen.text
            time.sleep(0.01)
        return time.monotonic() - self._began

    def end(self) -> int:
        """Wait for the end, read all, and return the exit code."""
        deadline = time.monotonic() + 60
        while self.process.exitcode is None:
            assert time.monotonic() < deadline, self.screen.text
            self._read()  # a full terminal would stop it
            time.sleep(0.01)
        self._read()
        os.close(self._ours)
        os.close(self._theirs)
        return self.process.exitcode

    def _read(self) -> Screen:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._ours, 65536):
                self.raw += part
                self.screen.feed(part.decode())
        return self.screen
