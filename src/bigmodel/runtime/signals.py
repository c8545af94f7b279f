"""Signals: stopping on request, the name of a signal that ended a process, and the end of a parent process.

The first request lets the step finish and saves; a second one ends at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from bigmodel.errors import Interrupted

_PR_SET_PDEATHSIG = 1  # prctl.h
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StopRequest:
    """Whether somebody asked this process to stop.

    Before `defer`, a signal raises Interrupted where it falls: there is nothing to save yet. After it, the signal is
    only noted, and the loop asks.
    """

    def __init__(self) -> None:
        self._deferred = False
        self._seen: str | None = None
        self._early: Interrupted | None = None

    def install(self) -> StopRequest:
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self.handle)
        return self

    def defer(self) -> None:
        """From now on the loop decides when to stop; what foreign code has made of a signal before does not count."""
        self._deferred = True
        self._early = None

    def __call__(self) -> bool:
        return self._seen is not None

    @property
    def early(self) -> Interrupted | None:
        """The exception that a signal before `defer` raised; interrupted user code may have replaced it by another."""
        return self._early

    @property
    def name(self) -> str:
        return self._seen or ""

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal, as its handler; a second one ends the process at once."""
        if self._seen is not None:
            os._exit(128 + number)  # checkpoints are atomic, so dying here loses no more than the steps since the last
        self._seen = signal.Signals(number).name
        if not self._deferred:
            self._early = Interrupted(f"stopped by {self._seen}; nothing was written")
            raise self._early


def let_signals_in() -> None:
    """Handle stop signals that wait since this process was forked, and all that come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let a signal raise KeyboardInterrupt inside the context, where nothing has to be saved, even after `defer`.

    In another thread than the main one nothing changes: there no signal arrives.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    kept = (signal.SIG_IGN, None)  # as nohup has it; or set by foreign code in C
    before = {number: handler for number, handler in before.items() if handler not in kept}
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe_exit_code(code: int) -> str:
    """Return `exit code 1`, or for a negative code `killed by SIGTERM`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (" (often: out of memory)" if name == "SIGKILL" else "")


def exit_with_parent(parent: int) -> None:
    """Have Linux kill this process when its parent, the process `parent`, dies; exit at once if it has died already."""
    import ctypes  # costs a few milliseconds that other commands need not pay

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
