"""The page of several runs: their results beside each other, their curves in one chart, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence

from bigmodel.formatting import format_count
from bigmodel.metric_spec import on_test_split
from bigmodel.runs.comparison.measures import reasons_not_comparable
from bigmodel.runs.comparison.seed_groups import differing_keys, format_value, group_by_config
from bigmodel.runs.report.charts import Series, line_chart
from bigmodel.runs.report.curves import metric_text, title_of
from bigmodel.runs.report.gather import RunData
from bigmodel.runs.report.html import escape, grid, section, table
from bigmodel.runs.report.page import document, duration
from bigmodel.runs.report.svg import SvgWriter

_MAX_RUNS = 40
_MAX_KEYS = 60  # in which they differ
_MAX_COLORS = 8
_MAX_VALUE = 80  # letters


def comparison_page(runs: Sequence[RunData], warnings: Sequence[str]) -> str:
    """Return the page of at least two runs; those beyond the fortieth are left out and counted."""
    shown, left = runs[:_MAX_RUNS], max(0, len(runs) - _MAX_RUNS)
    names = run_names(shown)
    writer = SvgWriter()
    metrics = list(dict.fromkeys(name for run in shown for name in run.metric_names()))
    charts = [_chart(writer, shown, names, name) for name in metrics]
    left_out = f"{format_count(left, 'more run')} left out." if left else ""
    body = [
        section("Results", _results(shown, names, metrics), note=left_out),
        section("Curves", grid(*charts), note="" if any(charts) else "Nothing has been evaluated yet."),
        section("Different settings", _settings(shown, names)),
        section("Different environments", _environments(shown, names)),
    ]
    subjects = dict.fromkeys(run.subject for run in shown)
    title = f"{len(runs)} runs: {', '.join(subjects)}"
    lead = f'<h1>{escape(title, 200)}</h1><p class="lead">{escape(_sentence(shown, names))}</p>'
    return document(title, lead, "".join(body), warnings)


def run_names(runs: Sequence[RunData]) -> list[str]:
    """Return names that tell the runs apart: of their directories, with parents where those are alike."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    return ["/".join(run.record.path.resolve().parts[-2:])[:80] for run in runs]


def _sentence(runs: Sequence[RunData], names: Sequence[str]) -> str:
    monitors = {run.record.monitor for run in runs}
    if len(monitors) > 1:
        return "The runs monitor different metrics, so none is called the best."
    metric = on_test_split(runs[0].record.monitor)
    name = metric.rpartition("/")[2]
    spec = runs[0].spec(name)
    found = [
        (run.record.metrics[metric], at) for run, at in zip(runs, names, strict=True) if metric in run.record.metrics
    ]
    if not found or spec.direction == "none":
        return ""
    differs = reasons_not_comparable(group_by_config([run.record for run in runs]), metric)
    if differs:
        return f"{metric} is not comparable: the runs differ in {', '.join(differs)}."
    value, best = (min if spec.direction == "min" else max)(found)
    return (
        f"The best {metric} is {metric_text(value, spec)}, of {best}. Whether that is chance, bigmodel-compare tells."
    )


def _results(runs: Sequence[RunData], names: Sequence[str], metrics: Sequence[str]) -> str:
    tested = [name for name in metrics if any(f"test/{name}" in run.record.metrics for run in runs)]
    rows = []
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        found = run.record.metrics
        mark = f'<i style="background:var(--{_color(place)})"></i>{escape(name)}'
        best = metric_text(found.get("best"), run.spec(run.record.monitor.rpartition("/")[2]))
        figures = [metric_text(found.get(f"test/{metric}"), run.spec(metric)) for metric in tested]
        spent = duration(found["seconds"]) if "seconds" in found else "–"
        rows.append([mark, *map(escape, (run.subject, run.record.state, run.record.monitor, best, *figures, spent))])
    head = ["run", "what", "state", "monitor", "best", *(f"test/{name}" for name in tested), "time"]
    return table(head, rows, html_cells=True)


def _chart(writer: SvgWriter, runs: Sequence[RunData], names: Sequence[str], metric: str) -> str:
    axis = "epoch" if all(run.axis == "epoch" for run in runs) else "step"
    spec = next((run.spec(metric) for run in runs if metric in run.record.specs), runs[0].spec(metric))
    has_val = any(run.curve("val", metric, axis)[0] for run in runs)
    split = "val" if has_val else "train"
    series = [
        Series(name, *run.curve(split, metric, axis), color=place, gray=place >= _MAX_COLORS)
        for place, (run, name) in enumerate(zip(runs, names, strict=True))
    ]
    title = f"{split}/{title_of(metric, spec)}"
    return line_chart(writer, title, series, axis, lambda value: metric_text(value, spec), is_share=spec.is_share)


def _color(place: int) -> str:
    return f"c{place}" if place < _MAX_COLORS else "muted"


def _settings(runs: Sequence[RunData], names: Sequence[str]) -> str:
    keys = differing_keys([run.record.config for run in runs])[:_MAX_KEYS]
    rows = [[key, *(dict(run.config_rows()).get(key, "–")[:_MAX_VALUE] for run in runs)] for key in keys]
    return table(["setting", *names], rows) if rows else ""


def _environments(runs: Sequence[RunData], names: Sequence[str]) -> str:
    keys = dict.fromkeys(key for run in runs for key in run.record.environment)
    columns = {key: [format_value(run.record.environment.get(key, "–"))[:_MAX_VALUE] for run in runs] for key in keys}
    rows = [[key.removeprefix("environment."), *column] for key, column in columns.items() if len(set(column)) > 1]
    return table(["", *names], rows) if rows else ""
