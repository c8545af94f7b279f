"""Sections about the course of a run: curves of metrics and rates, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence

from bigmodel.metric_spec import OF_THE_RUN, MetricSpec
from bigmodel.runs.records import number
from bigmodel.runs.report.charts import Series, line_chart
from bigmodel.runs.report.gather import RunData
from bigmodel.runs.report.html import escape, grid, section, table
from bigmodel.runs.report.svg import SvgWriter

_RATES = {"lr": "learning rate", "samples_per_s": "samples per second", "grad_norm": "gradient norm"}
_SPLITS = ("train", "val")


def curves(writer: SvgWriter, run: RunData) -> str:
    """Return the curves of all metrics, then of the learning rate, the throughput and the gradient norm."""
    axis = run.axis
    names = run.metric_names()
    relatives = {name: [other for other in names if other.endswith(f"_{name}")] for name in names}
    drawn_elsewhere = {other for others in relatives.values() for other in others}
    charts = [_metric_chart(writer, run, name, relatives[name], axis) for name in names if name not in drawn_elsewhere]
    for name, title in _RATES.items():
        spec = OF_THE_RUN[name]
        series = [Series(title, *run.curve("train", name, axis), color=2)]
        charts.append(line_chart(writer, title, series, axis, spec.text, linear=True))
    return section("Curves", grid(*charts))


def _metric_chart(writer: SvgWriter, run: RunData, name: str, relatives: Sequence[str], axis: str) -> str:
    """Draw a metric; `relatives` are the same metric of baselines and other decoders, as `naive_mse` beside `mse`."""
    spec = run.spec(name)
    series = [Series(split, *run.curve(split, name, axis), color=index) for index, split in enumerate(_SPLITS)]
    for color, other in enumerate(relatives, len(series)):
        series.append(Series(f"val {other}", *run.curve("val", other, axis), color=color, dashed=True))
    star = None
    if run.record.monitor == f"val/{name}" and run.best is not None:
        step, value = run.best
        at = next((number(event.get(axis)) for event in run.events if event.get("step") == step), None)
        star = None if at is None else (at, value)
    return line_chart(
        writer, title_of(name, spec), series, axis, lambda value: metric_text(value, spec), star, is_share=spec.is_share
    )


def title_of(name: str, spec: MetricSpec) -> str:
    """Return a metric's name with its unit and better direction."""
    notes = [spec.unit] if spec.unit else []
    if spec.direction != "none":
        notes.append("lower is better" if spec.direction == "min" else "higher is better")
    return name + (f" ({', '.join(notes)})" if notes else "")


def metric_text(value: float | None, spec: MetricSpec) -> str:
    """Return a value in its declared format; a dash for None."""
    return "–" if value is None else spec.text(value)


def evaluations(run: RunData) -> str:
    """Return each evaluation as a row of a table."""
    names = run.metric_names()
    events = [event for event in run.events if event["split"] != "train"]
    if not events:
        return ""
    rows = []
    for event in events[-1000:]:
        mark = "best so far" if event.get("best") is True else ""
        place = [f"{number(event.get(key)) or 0:g}" for key in ("step", "epoch")]
        figures = [metric_text(number(event.get(name)), run.spec(name)) for name in names]
        rows.append([*place, event["split"][:20], *figures, mark])
    return table(["step", "epoch", "split", *names, ""], rows, "Evaluations")


def time_spent(run: RunData) -> str:
    """Return a bar of where the run's seconds went."""
    total = run.record.metrics.get("seconds", 0.0)
    sums = [(number(run.summary.get(key)) or 0.0, text) for key, text in _PARTS]
    spent = [number(event.get("seconds")) or 0.0 for event in run.events if event["split"] != "train"]
    sums.append((sum(spent), "evaluations"))
    rest = total - sum(seconds for seconds, _ in sums)
    parts = [(seconds, name) for seconds, name in [*sums, (rest, "saving, logging and the rest")] if seconds > 0]
    if total <= 0 or not parts:
        return ""
    whole = sum(seconds for seconds, _ in parts)
    pieces = "".join(
        f'<span style="flex:{seconds / whole:.4f};background:var(--c{index})" title="{escape(name)}"></span>'
        for index, (seconds, name) in enumerate(parts)
    )
    rows = [
        [f'<i style="background:var(--c{index})"></i>{escape(name)}', f"{seconds:.2f} s", f"{seconds / whole:.1%}"]
        for index, (seconds, name) in enumerate(parts)
    ]
    bar = f'<div class="bar" aria-hidden="true">{pieces}</div>'
    return section("Where the time went", bar, table(["part", "time", "share"], rows, html_cells=True))


_PARTS = (("step_s", "updates"), ("data_s", "waiting for data"))
