"""Format events as plain lines, for the log file and where stdout is no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigmodel.events import Evaluated, Saved, Started, TrainLogged, Warned
from bigmodel.formatting import format_count
from bigmodel.metric_spec import MetricSpec

RESUME_LABEL = "train longer"  # the longest word at the left of the lines that end a run
_UNDECLARED = MetricSpec("none")  # default format of metrics without a declaration


def format_event(event: object) -> str:
    """Return the line of an event; empty for events that get none."""
    match event:
        case Started():
            begins = f"resumes at step {event.step}" if event.step else "starts"
            epochs = format_count(event.steps / event.steps_per_epoch, "epoch")
            return f"{begins}: {format_count(event.steps, 'step')} ({epochs}) on {event.device}, in {event.directory}"
        case TrainLogged():
            pace = f"lr {event.lr:.3g}  {event.samples_per_s:.0f} samples/s"
            return f"[{_epoch(event.epoch)}, {event.step:5d}] {format_metrics(event.metrics, event.specs)}  {pace}"
        case Evaluated():
            mark = "  (best so far)" if event.best else ""
            metrics = format_metrics(event.metrics, event.specs)
            return f"[{_epoch(event.epoch)}, {event.step:5d}] {event.split}: {metrics}{mark}"
        case Saved():
            return f"saved {event.path} in {event.seconds:.2f} s"
        case Warned():
            return f"warning: {event.text}"
    return ""


def format_end_line(label: str, text: str) -> str:
    """Return one of the lines that end a run, whoever prints it: `   files  outputs/...`."""
    return f"{label:>{len(RESUME_LABEL)}}  {text}"


def format_metrics(metrics: Mapping[str, Any], specs: Mapping[str, MetricSpec]) -> str:
    """Return `loss 0.312  accuracy 91.20%`, each in its declared format; tables are left out."""
    scalars = {name: value for name, value in metrics.items() if isinstance(value, float)}
    return "  ".join(f"{name} {format_metric(value, specs.get(name))}" for name, value in scalars.items())


def format_metric(value: float, spec: MetricSpec | None) -> str:
    """Return one metric in its declared format, without its unit."""
    return (spec or _UNDECLARED).text(value)


def _epoch(epoch: float) -> str:
    return f"epoch {epoch:.0f}" if epoch == int(epoch) else f"epoch {epoch:.2f}"
