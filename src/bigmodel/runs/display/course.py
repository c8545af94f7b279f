"""Read how the metrics of a run went, and show the run: what it is, how far it got, and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bigmodel.runs.display.curve import Line, draw_lines
from bigmodel.runs.display.html import facts_table
from bigmodel.runs.records import RunRecord, iter_metric_events, number

_CHOICES = ("model", "dataset", "optim")
_MOST_METRICS = 6


def metric_line(path: Path, split: str, metric: str, name: str = "") -> Line:
    """Return a metric of a split over the steps of a run."""
    steps, values = list[float](), list[float]()
    for event in iter_metric_events(path):
        step, value = number(event.get("step")), number(event.get(metric))
        if event["split"] == split and step is not None and value is not None:
            steps.append(step)
            values.append(value)
    return Line(name or split, steps, values)


def run_facts(record: RunRecord) -> dict[str, str]:
    """Return the choices, the state and the main results of a run, formatted as its task declares."""
    facts = {group: str(record.config[group]) for group in _CHOICES if isinstance(record.config.get(group), str)}
    step, steps = record.metrics.get("step"), record.metrics.get("steps")
    if step is not None:
        facts["steps"] = f"{step:.0f}" + (f" of {steps:.0f}" if steps is not None else "")
    if "best" in record.metrics and record.monitor:
        facts[f"best {record.monitor}"] = _text(record, "best")
    tested = [name for name in record.metrics if name.startswith("test/")]
    facts |= {name: _text(record, name) for name in tested[:_MOST_METRICS]}
    if "seconds" in record.metrics:
        facts["seconds"] = f"{record.metrics['seconds']:.1f}"
    return facts


def show_run(record: RunRecord) -> str:
    """Return a run as HTML: its facts, its loss, and its monitored metric."""
    split, _, metric = record.monitor.partition("/")
    charts = [draw_lines("loss", [metric_line(record.path, "train", "loss"), metric_line(record.path, "val", "loss")])]
    if metric and metric != "loss":
        charts.append(draw_lines(metric, [metric_line(record.path, split, metric)]))
    return facts_table(f"{record.path} — {record.state}", run_facts(record)) + "".join(charts)


def compare_runs(records: Sequence[RunRecord]) -> str:
    """Return the monitored metric of runs that share it as one chart; empty where they do not."""
    monitors = {record.monitor for record in records}
    if len(monitors) != 1:
        return ""
    monitor = monitors.pop()
    split, _, metric = monitor.partition("/")
    return draw_lines(monitor, [metric_line(record.path, split, metric, record.path.name) for record in records])


def _text(record: RunRecord, metric: str) -> str:
    spec = record.spec(metric)
    value = record.metrics[metric]
    return spec.text(value) if spec is not None else f"{value:.4g}"
