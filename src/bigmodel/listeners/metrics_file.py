"""Listener that writes `metrics.jsonl`: one event per line, appended and flushed, scalars only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bigmodel.events import Evaluated, TrainLogged
from bigmodel.safe_files import append_to

__all__ = ["MetricsFile"]


class MetricsFile:
    """Appends training and evaluation events; the tables of an evaluation go to `summary.json` instead."""

    def __init__(self, directory: Path) -> None:
        self._file = append_to(directory / "metrics.jsonl")

    def __call__(self, event: object) -> None:
        record = flatten_event(event)
        if record:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def flatten_event(event: object) -> dict[str, Any]:
    """Return an event's numbers as one flat record; empty for events without numbers."""
    if isinstance(event, TrainLogged):
        rest = {name: getattr(event, name) for name in ("lr", "grad_norm", "samples_per_s", "data_s", "step_s")}
        return {"step": event.step, "epoch": event.epoch, "split": "train", **event.metrics, **rest}
    if isinstance(event, Evaluated):
        scalars = {name: value for name, value in event.metrics.items() if isinstance(value, (int, float))}
        rest = {"best": event.best, "seconds": event.seconds}
        return {"step": event.step, "epoch": event.epoch, "split": event.split, **scalars, **rest}
    return {}
