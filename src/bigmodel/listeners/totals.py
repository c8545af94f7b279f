"""Listener that sums up a run for `summary.json`: last metrics, throughput, and where the time went."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bigmodel.events import Evaluated, TrainLogged
from bigmodel.formatting import format_count
from bigmodel.listeners.metrics_file import flatten_event

__all__ = ["RunTotals"]

_TIMES = ("samples_per_s", "data_s", "step_s", "seconds")  # differ between runs of one config, so they are not hashed
_NOT_TRAIN_METRICS = ("step", "epoch", "split", "lr", "grad_norm", *_TIMES)  # keys of a training record
_NOT_EVAL_METRICS = ("step", "epoch", "split", "best", "seconds")


class RunTotals:
    """Adds up a run's records, including those from before it was resumed.

    `state` goes into every checkpoint: the number of records and a hash of them without times, so that a damaged
    `metrics.jsonl` is noticed; and the last metrics, so that the summary does not depend on that file.
    """

    def __init__(self) -> None:
        self._train: Mapping[str, float] = {}
        self._val: Mapping[str, Any] = {}
        self._samples = 0.0
        self._data_s = 0.0
        self._step_s = 0.0
        self._evaluation_s = 0.0
        self._records = 0
        self._hash = hashlib.sha256()

    def __call__(self, event: object) -> None:
        if record := flatten_event(event):
            self._add(record)
        if isinstance(event, TrainLogged):
            self._train = dict(event.metrics)
        elif isinstance(event, Evaluated) and event.split == "val":
            self._val = {name: value for name, value in event.metrics.items() if isinstance(value, (int, float))}

    def close(self) -> None:
        """Nothing is held open."""

    @property
    def seconds(self) -> float:
        """Seconds spent on updates, data and evaluations, according to the records."""
        return self._data_s + self._step_s + self._evaluation_s

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: `records`, `sha256`, and the last metrics of `train` and `val`."""
        return {"records": self._records, "sha256": self._hash.hexdigest(), "train": self._train, "val": self._val}

    def restore(self, records: Sequence[Mapping[str, Any]], state: Mapping[str, Any] | None) -> list[str]:
        """Add the records in `metrics.jsonl` of an interrupted run, and compare them with a checkpoint's `state`.

        The state is None if an older version wrote the checkpoint. Returns a warning for each disagreement.
        """
        for record in records:
            self._add(record)
            if record["split"] == "train":
                self._train = {key: value for key, value in record.items() if key not in _NOT_TRAIN_METRICS}
            elif record["split"] == "val":
                self._val = {key: value for key, value in record.items() if key not in _NOT_EVAL_METRICS}
        if state is None or state == self.state():
            return []
        try:
            self._train, self._val, written = dict(state["train"]), dict(state["val"]), int(state["records"])
        except (LookupError, TypeError, ValueError, OverflowError):  # no version has written this
            return ["the checkpoint's record of metrics.jsonl cannot be read; metrics.jsonl may be incomplete"]
        self._records = 0
        self._hash = hashlib.sha256()  # later checkpoints describe the records that are left
        for record in records:
            self._digest(record)
        if len(records) > written:
            more = format_count(len(records) - written, "line")
            return [f"metrics.jsonl: holds {more} up to this step that this run has not written; plots of them mislead"]
        if written != len(records):
            of = f"{len(records)} of the {format_count(written, 'line')}"
            return [f"metrics.jsonl: {of} up to this step are left; the rest is lost"]
        return ["metrics.jsonl: some numbers up to this step are not those that were written; plots of them mislead"]

    def summary(self) -> dict[str, Any]:
        """Return the last training and validation metrics, samples/s, and seconds spent on data and on updates."""
        busy = self._data_s + self._step_s
        if not self._train and not busy:
            return {}
        rate = self._samples / busy if busy else 0.0
        return {
            "train": self._train,
            "val": self._val,
            "samples_per_s": rate,
            "data_s": self._data_s,
            "step_s": self._step_s,
        }

    def _add(self, record: Mapping[str, Any]) -> None:
        if record["split"] == "train":
            data_s, step_s, rate = (_number(record.get(key)) for key in ("data_s", "step_s", "samples_per_s"))
            self._samples += rate * (data_s + step_s)
            self._data_s += data_s
            self._step_s += step_s
        else:
            self._evaluation_s += _number(record.get("seconds"))
        self._digest(record)

    def _digest(self, record: Mapping[str, Any]) -> None:
        kept = {key: value for key, value in record.items() if key not in _TIMES}
        self._hash.update(json.dumps(kept, sort_keys=True).encode())
        self._records += 1


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
