"""The last lines of a terminal, drawn again and again while all other output goes above them. Imports no torch.

Drawn by hand: rich takes 0.1 s to import, and the first line stands before anything else is loaded. The cursor rests at
the start of the text. So a killed process leaves nothing to restore, and clearing to the end of the screen also removes
lines that a narrower window has wrapped.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from bigmodel.formatting import cut, escape_control
from bigmodel.runtime.terminal import draws_in_place, draws_unicode, is_terminal, terminal_size

_REFRESH_S = 0.2
_TO_START, _CLEAR, _END_LINE, _UP = b"\r", b"\x1b[J", b"\x1b[K\r\n", b"\x1b[%dA"


class LiveText:
    """Draws `text(columns)`, one line or several, at once and then every 0.2 s from a thread of its own, until closed.

    Standard output and error are replaced meanwhile: what is printed erases the text first, and is followed by it.
    """

    def __init__(self, text: Callable[[int], str]) -> None:
        self._text = text
        self._terminal = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._process = os.getpid()
        self._shown = self._in_line = False
        self._streams = {name: getattr(sys, name) for name in ("stdout", "stderr") if getattr(sys, name).isatty()}
        self._replaced = {name: _Above(stream, self.print_above) for name, stream in self._streams.items()}
        for name, stream in self._replaced.items():
            setattr(sys, name, stream)
        self.draw()
        self._thread = threading.Thread(target=self._keep_drawing, name="live text", daemon=True)
        self._thread.start()

    def draw(self) -> None:
        """Draw the text, unless other output has left a line unfinished. A terminal that is gone is left alone."""
        with self._lock, contextlib.suppress(OSError):
            if self._closed.is_set() or self._in_line:
                return
            columns, rows = terminal_size()
            text = self._text(columns)
            if not text:
                return self._erase()
            lines = [cut(escape_control(line), columns - 1, "...") for line in text.split("\n")[: rows - 1]]
            encoded = [line.encode(self._encoding, "backslashreplace") for line in lines]
            back = _UP % (len(lines) - 1) if len(lines) > 1 else b""
            self._write(_END_LINE.join(encoded) + _CLEAR + back)
            self._shown = True

    def print_above(self, stream: Any, text: str) -> int:
        """Write a text to the stream in the place of the drawn one, which comes back at the next refresh."""
        if os.getpid() != self._process:  # a forked worker, whose parent may have held the lock
            return int(stream.write(text))
        with self._lock:
            self._erase()
            written = int(stream.write(text))
            stream.flush()
            if text:
                self._in_line = text[-1] not in "\r\n"
            return written

    def close(self) -> None:
        """Erase the text and give the streams back."""
        with self._lock:
            self._closed.set()
            self._erase()
        for name, stream in self._replaced.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, self._streams[name])
        self._thread.join()

    def _keep_drawing(self) -> None:
        while not self._closed.wait(_REFRESH_S):
            self.draw()

    def _erase(self) -> None:
        if self._shown:
            self._shown = False
            with contextlib.suppress(OSError):
                self._write(b" " + _CLEAR)  # a clear from the screen's first cell puts it all into tmux's history

    def _write(self, content: bytes) -> None:
        os.write(self._terminal, _TO_START + content + _TO_START)  # past Python's buffers, whose locks a fork may copy


class StatusLine:
    """Terminal line with a command's current activity and its duration, before there is anything else to show.

    A terminal that cannot redraw a line gets a line for each text, or with `plain=False` none.
    """

    def __init__(self, plain: bool = True) -> None:
        self._text = ""
        self._since = 0.0
        self._fancy = False
        self._plain = plain
        self._line: LiveText | None = None

    def show(self, text: str) -> None:
        """Say what is being done from now on; with an empty text, nothing."""
        self._text = text
        self._since = monotonic()
        if self._line is not None:
            self._line.draw()
        elif text and draws_in_place():
            self._fancy = draws_unicode()
            self._line = LiveText(self._format)
        elif text and self._plain and is_terminal():
            print(text, flush=True)

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.close()

    def _format(self, columns: int) -> str:
        if not self._text:
            return ""
        return with_spinner(f"{self._text}  {elapsed_text(monotonic() - self._since)}", self._fancy)


class _Above:
    """A stream that lets a `LiveText` make room before each write."""

    def __init__(self, stream: Any, write: Callable[[Any, str], int]) -> None:
        self._stream = stream
        self._write = write

    def write(self, text: str) -> int:
        return self._write(self._stream, text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def with_spinner(text: str, fancy: bool) -> str:
    """Put a spinner before the text; which of its frames depends on the time."""
    signs = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if fancy else "|/-\\"
    return f"{signs[int(monotonic() / _REFRESH_S) % len(signs)]} {text}"


def elapsed_text(seconds: float) -> str:
    """Format seconds as `7 s`, `4:07` or `1:04:07`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    return f"{hours}:{minutes % 60:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
