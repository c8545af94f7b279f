"""The page of a sweep: leaderboard, curves, the metric over each hyperparameter, parallel coordinates, failures."""

from __future__ import annotations

import warnings as python_warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigmodel.formatting import format_count
from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison.leaderboard import rank_groups
from bigmodel.runs.comparison.lettering import Lettering
from bigmodel.runs.comparison.measures import common_spec, comparable_groups
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

_Measured = Sequence[tuple[SeedGroup, float]]  # each run's best value


@dataclass(frozen=True)
class _Sweep:
    """Data that all parts of the page share. `keys` differ between configurations; `groups` are runs by them."""

    path: Path
    runs: Sequence[RunData]
    groups: Sequence[SeedGroup]
    keys: Sequence[str]
    monitor: str
    spec: MetricSpec | None

    @property
    def shown(self) -> MetricSpec:
        """How values of the monitored metric are written, if its runs agree on that."""
        return self.spec or MetricSpec("none")


def sweep_page(path: Path, runs: Sequence[RunData], warnings: Sequence[str]) -> str:
    """Return the page of a sweep with at least one job."""
    groups = group_by_config([run.record for run in runs])
    keys = varied_keys([group.config for group in groups])
    sweep = _Sweep(path, runs, groups, keys, runs[0].record.monitor, _common_spec(runs))
    writer = SvgWriter()
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # of letters that matplotlib's own font lacks: the page has others
        body = [
            _leaderboard(sweep),
            section("Curves", grid(_curves(writer, sweep))),
            _hyperparameters(writer, sweep),
            _failures(runs),
            section("Environment", details("of the first job", facts(runs[0].environment_rows()))),
        ]
    title = f"sweep: {runs[0].subject}" if "model" not in keys and "dataset" not in keys else "sweep"
    return document(title, _lead(sweep, title), "".join(body), warnings)


def _lead(sweep: _Sweep, title: str) -> str:
    states = Counter(run.record.state.replace("_", " ") for run in sweep.runs)
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    is_one_contest = len(comparable_groups(sweep.groups, "best")[1]) <= 1  # else each has its own best
    best = best_first(sweep.groups, sweep.spec)[:1] if is_one_contest else []
    sentence = f"{format_count(len(sweep.runs), 'job')} over {', '.join(sweep.keys) or 'nothing'}: {counted}."
    if best:
        values = list(best[0].values("best").values())
        mean = metric_text(sum(values) / len(values), sweep.shown)
        sentence += f" Best: {label(best[0], sweep.keys)} with {sweep.monitor} {mean}."
    seconds = sum(run.record.metrics.get("seconds", 0.0) for run in sweep.runs)
    return (
        f'<h1>{escape(title)}</h1><p class="lead">{escape(sentence)}</p>'
        f'<p class="note">{escape(sweep.path.resolve())} · {escape(duration(seconds))} of training in all</p>'
    )


def _leaderboard(sweep: _Sweep) -> str:
    ranking = rank_groups(sweep.groups, sweep.keys)
    left = len(ranking.rows) - _MAX_ROWS
    note = " ".join([*ranking.notes, *([f"{left} more are in results.csv."] if left > 0 else [])])
    return section("Leaderboard", table(ranking.head, ranking.rows[:_MAX_ROWS]), note=note)


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


def _curves(writer: SvgWriter, sweep: _Sweep) -> str:
    """Return the monitored metric over epochs: the best configurations in colors, seeds alike, the others gray."""
    split, _, name = sweep.monitor.partition("/")
    by_path = {run.record.path: run for run in sweep.runs}
    ranked = best_first(sweep.groups, sweep.spec)
    ordered = [*ranked, *(group for group in sweep.groups if group not in ranked)]
    series = []
    for place, group in enumerate(ordered):
        for record in group.runs:
            is_gray = place >= _MAX_COLORS or not record.finished
            xs, ys = by_path[record.path].curve(split, name, "epoch")
            series.append(Series(label(group, sweep.keys), xs, ys, place, gray=is_gray))
    chosen = [one for one in series if one.xs][:_MAX_RUNS]
    chosen.sort(key=lambda one: not one.gray)  # gray ones are drawn first, below the others
    rest = sum(one.gray for one in chosen)
    note = f"{rest} more are gray: lower ranked, or unfinished." if rest else ""
    shown = sweep.shown
    return line_chart(
        writer, sweep.monitor, chosen, "epoch", lambda value: shown.text(value), note=note, is_share=shown.is_share
    )


def _hyperparameters(writer: SvgWriter, sweep: _Sweep) -> str:
    keys = sweep.keys[:_MAX_KEYS]
    measured = [(group, value) for group in sweep.groups for value in group.values("best").values()]
    if not measured or not keys:
        return ""
    letters = Lettering()
    charts = [_hyperparameter_chart(writer, sweep, key, keys, measured, letters) for key in keys]
    parts = section("Over each hyperparameter", grid(*charts))
    return parts + (_parallel_chart(writer, sweep, keys, measured, letters) if len(keys) > 1 else "")


def _hyperparameter_chart(
    writer: SvgWriter, sweep: _Sweep, key: str, keys: Sequence[str], measured: _Measured, letters: Lettering
) -> str:
    """Return the best values over one hyperparameter; `keys` name a configuration where the pointer rests."""
    from matplotlib.figure import Figure

    with writer.style():
        drawing = Figure(figsize=SIZE, layout="constrained")
        axes = drawing.subplots()
        plot_hyperparameter(axes, key, measured, (sweep.path / "search.json").is_file(), letters)
        name_metric(axes, "", [value for _, value in measured], sweep.spec, letters)
        axes.set(xlabel="", ylabel="")
        tips = [[f"{metric_text(value, sweep.shown)}: {label(group, keys)}" for group, value in measured]]
        title = f"best {sweep.monitor} over {key}"
        return figure(writer.to_svg(drawing, title, tips), title)


def _parallel_chart(
    writer: SvgWriter, sweep: _Sweep, keys: Sequence[str], measured: _Measured, letters: Lettering
) -> str:
    from matplotlib.figure import Figure

    best = f"best {sweep.monitor}"
    inches = max(6.5, 1.4 * (1 + len(keys)))
    with writer.style():
        drawing = Figure(figsize=(inches, 3.0), layout="constrained")
        plot_parallel(drawing, keys, measured, best, sweep.spec, letters)
        svg = writer.to_svg(drawing, f"parallel coordinates of {', '.join(keys)} and {best}")
    note = "A line for each run; the better its metric, the brighter."
    wide = figure(scroll(svg, "parallel coordinates", inches), f"{len(keys)} hyperparameters and the {best}")
    return section("Parallel coordinates", wide, note=note)


def _failures(runs: Sequence[RunData]) -> str:
    rows = []
    for run in runs:
        error = run.summary.get("error")
        if not run.record.finished:
            rows.append([run.name, run.record.state, error[:300] if isinstance(error, str) else ""])
    return section("Not finished", beside(table(["job", "state", "error"], rows))) if rows else ""
