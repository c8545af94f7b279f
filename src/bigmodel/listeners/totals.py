"""What `summary.json` says of a run's course: the last metrics, the rate, and where the time went."""

from __future__ import annotations

from typing import Any

from bigmodel.events import Evaluated, Trained

__all__ = ["Totals"]


class Totals:
    """Adds up events; `summary` is for this start of the run only, where it was resumed."""

    def __init__(self) -> None:
        self._train: dict[str, float] = {}
        self._val: dict[str, Any] = {}
        self._samples, self._seconds, self._data_s, self._step_s = 0.0, 0.0, 0.0, 0.0

    def __call__(self, event: object) -> None:
        if isinstance(event, Trained):
            self._train = dict(event.metrics)
            seconds = event.data_s + event.step_s
            self._samples += event.samples_per_s * seconds
            self._seconds += seconds
            self._data_s += event.data_s
            self._step_s += event.step_s
        elif isinstance(event, Evaluated) and event.split == "val":
            self._val = {name: value for name, value in event.metrics.items() if isinstance(value, (int, float))}

    def close(self) -> None:
        """Nothing is held open."""

    def summary(self) -> dict[str, Any]:
        """Last training and validation metrics, samples/s of the loop, and seconds spent on data and on updates."""
        if not self._seconds:
            return {}
        rate = self._samples / self._seconds
        return {
            "train": self._train,
            "val": self._val,
            "samples_per_s": rate,
            "data_s": self._data_s,
            "step_s": self._step_s,
        }
