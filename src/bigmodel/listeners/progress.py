"""The line that shows how far a run is: epoch, step, loss, rate and time left, as much as the terminal has room for."""

from __future__ import annotations

import math
from collections import deque
from time import monotonic

from bigmodel.events import Started, Stepped, TrainLogged
from bigmodel.formatting import columns_of
from bigmodel.listeners.lines import format_metric
from bigmodel.runtime.live_text import elapsed_text, with_spinner

_INTERVAL_S, _INTERVALS = 0.2, 50  # the rate is that of the last ten seconds
_SMOOTHING = 0.95  # of the loss: what is shown averages about twenty steps
_SHORTEST_BAR, _LONGEST_BAR = 10, 40
_GAP = "  "


class Progress:
    """Follows a run's events. `fancy`: signs beyond ASCII may be drawn."""

    def __init__(self, started: Started, fancy: bool) -> None:
        self._steps = started.steps
        self._steps_per_epoch = started.steps_per_epoch
        self._fancy = fancy
        self._step = started.step
        self._samples = 0
        self._began = monotonic()
        self._phase = ""
        self._phase_began = self._began
        self._loss = 0.0
        self._weight = 0.0
        self._metrics: list[str] = []
        self._recent: deque[tuple[float, int]] = deque(maxlen=_INTERVALS)  # seconds of training, and samples until then
        self._rate = 0.0
        self._left_out_s = 0.0
        self._first: tuple[float, int] | None = None  # the end of the first step, which may have compiled
        self._last = self._began

    @property
    def seconds(self) -> float:
        """Seconds since training began."""
        return monotonic() - self._began

    def set_phase(self, text: str) -> None:
        """Say what is done until the next step."""
        self._phase = text
        self._phase_began = monotonic()

    def add_step(self, event: Stepped) -> None:
        """Count a step. Called for each, so it only takes notes."""
        now = monotonic()
        if self._phase:  # the step after an evaluation or a save: how long it took by itself is not known
            self._left_out_s += now - self._last
        else:
            self._samples += event.samples
        self._step = event.step
        self._phase = ""
        self._last = now
        if event.loss is not None:
            self._loss = _SMOOTHING * self._loss + (1 - _SMOOTHING) * event.loss
            self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
        if self._first is None:
            self._first = now, event.step
        trained = now - self._left_out_s
        if not self._recent or trained - self._recent[-1][0] >= _INTERVAL_S:
            self._recent.append((trained, self._samples))
            (began, before), (ended, after) = self._recent[0], self._recent[-1]
            if ended > began:
                self._rate = (after - before) / (ended - began)

    def set_metrics(self, event: TrainLogged) -> None:
        """Take over the metrics besides the loss, which is followed step by step."""
        scalars = {name: value for name, value in event.metrics.items() if isinstance(value, float) and name != "loss"}
        self._metrics = [f"{name} {format_metric(value, event.specs.get(name))}" for name, value in scalars.items()]

    def line(self, columns: int) -> str:
        """Return the line, in less than this many columns."""
        bar = (5, " " * _SHORTEST_BAR)
        parts = [(2, self._epoch()), bar, (4, f"{self._step}/{self._steps}")]  # what ranks last is left out first
        if self._phase:
            parts.append((0, f"{self._phase}{_GAP}{elapsed_text(monotonic() - self._phase_began)}"))
        elif self._weight:
            parts.append((0, f"loss {format(self._loss / self._weight, '.4g')}"))
            parts += [(rank, text) for rank, text in enumerate(self._metrics, 6)]
        if self._rate and not self._phase:
            parts.append((3, f"{self._rate:.{0 if self._rate >= 10 else 1}f} samples/s"))
        if (seconds_left := self._seconds_left()) is not None:
            parts.append((1, f"{elapsed_text(seconds_left)} left"))
        room = columns - 3  # the spinner, and the last column, which some terminals wrap
        while len(parts) > 1 and _width(parts) > room:
            parts.remove(max(parts))
        longest = min(_LONGEST_BAR, _SHORTEST_BAR + room - _width(parts))
        return with_spinner(_GAP.join(self._bar(longest) if part is bar else part[1] for part in parts), self._fancy)

    def _epoch(self) -> str:
        epochs = self._steps / self._steps_per_epoch
        epoch = max(1, math.ceil(self._step / self._steps_per_epoch))
        return f"epoch {epoch}/{epochs:.4g}"

    def _bar(self, length: int) -> str:
        done = length * self._step // max(1, self._steps)
        full, empty = "━─" if self._fancy else "#-"
        return full * done + empty * (length - done)

    def _seconds_left(self) -> float | None:
        """Return the time that the steps left take at the mean pace so far, evaluations and saves included."""
        if self._first is None or self._step == self._first[1]:
            return None
        began, first = self._first
        pace = (self._last - began) / (self._step - first)
        return pace * (self._steps - self._step) - (monotonic() - self._last)


def _width(parts: list[tuple[int, str]]) -> int:
    return sum(columns_of(text) for _, text in parts) + len(_GAP) * (len(parts) - 1)
