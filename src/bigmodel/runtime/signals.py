"""Stop on a signal: the first one lets the step finish and saves; a second one ends at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

from bigmodel.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StopRequest:
    """Request to stop this process, set by a signal.

    Before `defer`, a signal raises Interrupted where it falls: there is nothing to save yet. After it, the signal is
    only noted, and the loop asks.
    """

    def __init__(self) -> None:
        self._deferred = False
        self._seen: str | None = None
        self._early: Interrupted | None = None

    def install(self) -> StopRequest:
        for number in _SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._handle)
        return self

    def defer(self) -> None:
        """Let the loop decide when to stop from now on; an earlier signal, whatever user code made of it, is void."""
        self._deferred, self._early = True, None

    def __call__(self) -> bool:
        return self._seen is not None

    @property
    def early(self) -> Interrupted | None:
        """Exception that a signal before `defer` raised; user code that it interrupted may have raised another."""
        return self._early

    @property
    def name(self) -> str:
        return self._seen or ""

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._seen is not None:
            os._exit(128 + number)  # checkpoints are atomic, so dying here loses no more than the steps since the last
        self._seen = signal.Signals(number).name
        if not self._deferred:
            self._early = Interrupted(f"stopped by {self._seen}; nothing was written")
            raise self._early


def in_words(code: int) -> str:
    """Return an exit code as text, or the name of the signal that it stands for."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (", as the system does where memory runs out" if name == "SIGKILL" else "")
