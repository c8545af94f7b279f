"""The page of a sweep: leaderboard, curves, the metric over each hyperparameter, parallel coordinates, failures."""

from __future__ import annotations

import warnings as python_warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison.leaderboard import rank_groups
from bigmodel.runs.comparison.lettering import Lettering
from bigmodel.runs.comparison.measures import common_spec
from bigmodel.runs.comparison.plots import name_metric, plot_hyperparameter, plot_parallel
from bigmodel.runs.comparison.seed_groups import SeedGroup, format_value, group_by_config, varied_keys
from bigmodel.runs.comparison.verdicts import rank_by_mean
from bigmodel.runs.report.charts import SIZE, Series, line_chart
from bigmodel.runs.report.curves import metric_text
from bigmodel.runs.report.gather import RunData
from bigmodel.runs.report.html import beside, details, escape, facts, figure, grid, scroll, section, table
from bigmodel.runs.report.page import document, duration
from bigmodel.runs.report.svg import SvgWriter

_MAX_ROWS = 200
_MAX_KEYS = 12  # hyperparameters that are drawn
_MAX_COLORS = 8
_MAX_RUNS = 60  # whose curves are drawn
_MAX_LABEL = 60  # letters


def sweep_page(path: Path, runs: Sequence[RunData], warnings: Sequence[str]) -> str:
    """Return the page of a sweep with at least one job."""
    groups = group_by_config([run.record for run in runs])
    keys = varied_keys([group.config for group in groups])
    monitor, spec = runs[0].record.monitor, _common_spec(runs)
    ranking = rank_groups(groups, keys)
    writer = SvgWriter()
    board = table(ranking.head, ranking.rows[:_MAX_ROWS])
    left = len(ranking.rows) - _MAX_ROWS
    note = " ".join([*ranking.notes, *([f"{left} more are in results.csv."] if left > 0 else [])])
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # of letters that matplotlib's own font lacks: the page has others
        body = [
            section("Leaderboard", board, note=note),
            section("Curves", grid(_curves(writer, runs, groups, keys, monitor, spec))),
            _hyperparameters(writer, groups, keys[:_MAX_KEYS], monitor, spec, (path / "search.json").is_file()),
            _failures(runs),
            section("Environment", details("of the first job", facts(runs[0].environment_rows()))),
        ]
    title = f"sweep: {runs[0].subject}" if "model" not in keys and "dataset" not in keys else "sweep"
    return document(title, _lead(path, title, runs, groups, keys, monitor, spec), "".join(body), warnings)


def _lead(
    path: Path,
    title: str,
    runs: Sequence[RunData],
    groups: Sequence[SeedGroup],
    keys: Sequence[str],
    monitor: str,
    spec: MetricSpec | None,
) -> str:
    states = Counter(run.record.state.replace("_", " ") for run in runs)
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    best = best_first(groups, spec)[:1]
    sentence = f"{len(runs)} jobs over {', '.join(keys) or 'nothing'}: {counted}."
    if best:
        values = list(best[0].values("best").values())
        mean = sum(values) / len(values)
        sentence += f" Best: {label(best[0], keys)} with {monitor} {metric_text(mean, spec or MetricSpec('none'))}."
    seconds = sum(run.record.metrics.get("seconds", 0.0) for run in runs)
    return (
        f'<h1>{escape(title)}</h1><p class="lead">{escape(sentence)}</p>'
        f'<p class="note">{escape(path.resolve())} · {escape(duration(seconds))} of training in all</p>'
    )


def best_first(groups: Sequence[SeedGroup], spec: MetricSpec | None) -> list[SeedGroup]:
    """Return the groups that have a best value, the best one first where a direction is declared."""
    values = {str(index): group.values("best") for index, group in enumerate(groups)}
    if spec is None or spec.direction == "none":
        return [groups[int(name)] for name, found in values.items() if found]
    return [groups[int(name)] for name in rank_by_mean(values, spec)]


def label(group: SeedGroup, keys: Sequence[str]) -> str:
    """Return a configuration's settings in short, as `lr=0.1 hidden=[32]`."""
    short = [key.rpartition(".")[2] for key in keys]
    names = [leaf if short.count(leaf) == 1 else key for key, leaf in zip(keys, short, strict=True)]
    text = " ".join(f"{name}={format_value(group.config.get(key))}" for key, name in zip(keys, names, strict=True))
    return (text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…") or "the one configuration"


def _common_spec(runs: Sequence[RunData]) -> MetricSpec | None:
    try:
        return common_spec([run.record for run in runs], runs[0].record.monitor)
    except ValueError:
        return None


def _curves(
    writer: SvgWriter,
    runs: Sequence[RunData],
    groups: Sequence[SeedGroup],
    keys: Sequence[str],
    monitor: str,
    spec: MetricSpec | None,
) -> str:
    """Return the monitored metric over epochs: the best configurations in colors, seeds alike, the others gray."""
    split, _, name = monitor.partition("/")
    by_path = {run.record.path: run for run in runs}
    ranked = best_first(groups, spec)
    ordered = [*ranked, *(group for group in groups if group not in ranked)]
    series = []
    for place, group in enumerate(ordered):
        for record in group.runs:
            is_gray = place >= _MAX_COLORS or not record.finished
            xs, ys = by_path[record.path].curve(split, name, "epoch")
            series.append(Series(label(group, keys), xs, ys, place, gray=is_gray))
    chosen = [one for one in series if one.xs][:_MAX_RUNS]
    chosen.sort(key=lambda one: not one.gray)  # gray ones are drawn first, below the others
    shown = spec or MetricSpec("none")
    rest = sum(one.gray for one in chosen)
    note = f"{rest} more are gray: lower ranked, or unfinished." if rest else ""
    return line_chart(
        writer, monitor, chosen, "epoch", lambda value: shown.text(value), note=note, is_share=shown.is_share
    )


def _hyperparameters(
    writer: SvgWriter,
    groups: Sequence[SeedGroup],
    keys: Sequence[str],
    monitor: str,
    spec: MetricSpec | None,
    searched: bool,
) -> str:
    from matplotlib.figure import Figure

    measured = [(group, value) for group in groups for value in group.values("best").values()]
    if not measured or not keys:
        return ""
    letters, charts = Lettering(), []
    values = [value for _, value in measured]
    for key in keys:
        with writer.style():
            drawing = Figure(figsize=SIZE, layout="constrained")
            axes = drawing.subplots()
            plot_hyperparameter(axes, key, measured, searched, letters)
            name_metric(axes, "", values, spec, letters)
            axes.set(xlabel="", ylabel="")
            tips = [[f"{metric_text(value, spec or MetricSpec('none'))}: {label(g, keys)}" for g, value in measured]]
            title = f"best {monitor} over {key}"
            charts.append(figure(writer.to_svg(drawing, title, tips), title))
    parts = [section("Over each hyperparameter", grid(*charts))]
    if len(keys) > 1:
        with writer.style():
            drawing = Figure(figsize=(max(6.5, 1.4 * (1 + len(keys))), 3.0), layout="constrained")
            plot_parallel(drawing, keys, measured, f"best {monitor}", spec, letters)
            svg = writer.to_svg(drawing, f"parallel coordinates of {', '.join(keys)} and best {monitor}")
        note = "A line for each run; the better its metric, the brighter."
        wide = figure(scroll(svg, "parallel coordinates"), f"{len(keys)} hyperparameters and the best {monitor}")
        parts.append(section("Parallel coordinates", wide, note=note))
    return "".join(parts)


def _failures(runs: Sequence[RunData]) -> str:
    rows = []
    for run in runs:
        error = run.summary.get("error")
        if not run.record.finished:
            rows.append([run.name, run.record.state, error[:300] if isinstance(error, str) else ""])
    return section("Not finished", beside(table(["job", "state", "error"], rows))) if rows else ""
