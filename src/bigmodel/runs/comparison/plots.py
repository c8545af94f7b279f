"""Plot a sweep: the metric over each hyperparameter, parallel coordinates, learning curves. Needs matplotlib."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison.learning_curves import draw_curves
from bigmodel.runs.comparison.lettering import Lettering, choose_fonts
from bigmodel.runs.comparison.seed_groups import SeedGroup, format_value
from bigmodel.runs.comparison.significance import summarize
from bigmodel.runs.records import number
from bigmodel.safe_files import own_folder

_LOG_RATIO = 10  # largest over smallest value from which a hyperparameter's axis is logarithmic
_LOG_RATIO_METRIC = 100  # the same for the metric's axis
_MAX_TICKS = 12
_MAX_NAMES = 40  # of values that are not numbers, at one axis
_MAX_LEVEL_LETTERS = 50  # of all names at an axis; longer names are rotated
_MIN_LABEL_GAP = 0.035  # between two labels of an upright axis, as a fraction of its height
_DPI = 120
DOTS = "hover-0"  # name of the dots of the runs in a drawing


@dataclass(frozen=True)
class AxisScale:
    """Positions of a hyperparameter's values on an axis: the numbers, or ranks if some values are not numbers."""

    positions: tuple[float, ...]
    logarithmic: bool
    labels: tuple[str, ...]  # of the positions 0, 1, ...; empty if the positions are the numbers

    def normalized(self) -> list[float]:
        """Return the positions scaled to [0, 1]; 0.5 if all are the same."""
        low, high = min(self.positions), max(self.positions)
        if low == high:
            return [0.5] * len(self.positions)
        if self.logarithmic:
            return [math.log(value / low) / math.log(high / low) for value in self.positions]
        return [(value - low) / (high - low) for value in self.positions]


def axis_scale(values: Sequence[Any]) -> AxisScale:
    """Return the axis for these values."""
    numbers = [number(value) for value in values]
    present = [value for value in numbers if value is not None]
    if values and len(present) == len(values):
        return AxisScale(tuple(present), min(present) > 0 and max(present) >= _LOG_RATIO * min(present), ())
    labels = sorted({format_value(value) for value in values})
    return AxisScale(tuple(float(labels.index(format_value(value))) for value in values), False, tuple(labels))


def file_name(key: str) -> str:
    """Return `over_optim.lr.png`; characters that are unusual in a file name are replaced."""
    return f"over_{re.sub(r'[^A-Za-z0-9_.-]', '_', key)[:100]}.png"


def draw(
    directory: Path,
    groups: Sequence[SeedGroup],
    keys: Sequence[str],
    monitor: str,
    spec: MetricSpec | None = None,
    searched: bool = False,
) -> tuple[list[Path], str]:
    """Write the plots as PNG files. Returns their paths, and a line about letters that no font has.

    `spec` is the runs' declaration of the monitored metric. `searched` says that the runs are of a search, which varies
    the other hyperparameters on purpose, so that a mean over them is not format_value.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the files cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure  # without pyplot, so no display is needed

    values = [format_value(group.config.get(key)) for group in groups for key in keys]
    letters = choose_fonts([monitor, *keys, *values])
    measured = [(group, value) for group in groups for value in group.values("best").values()]
    figures: dict[str, Any] = {}
    with matplotlib.rc_context({"font.family": list(letters.families)}):
        for key in keys if measured else ():
            figures[file_name(key)] = figure = Figure(figsize=(6, 4), layout="constrained")
            axes = figure.subplots()
            plot_hyperparameter(axes, key, measured, searched, letters)
            name_metric(axes, f"best {monitor}", [value for _, value in measured], spec, letters)
        if keys and measured:
            width = 2 + 1.6 * len(keys)
            figures["parallel_coordinates.png"] = figure = Figure(figsize=(max(6, width), 4.5), layout="constrained")
            plot_parallel(figure, keys, measured, f"best {monitor}", spec, letters)
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.subplots()
        heights = draw_curves(axes, groups, keys, monitor, spec, letters)
        if heights:  # else no run was evaluated
            name_metric(axes, monitor, heights, spec, letters)
            figures["learning_curves.png"] = figure
        if figures:
            own_folder(directory)
        for name, figure in figures.items():
            (directory / name).unlink(missing_ok=True)  # else a link in its place would be followed
            figure.savefig(directory / name, dpi=_DPI)
    return [directory / name for name in figures], letters.note


def name_metric(axes: Any, name: str, values: Sequence[float], spec: MetricSpec | None, letters: Lettering) -> None:
    """Label the upright axis with a metric's name, unit and better direction."""
    notes = [spec.unit] if spec is not None and spec.unit else []
    if spec is not None and spec.direction != "none":
        notes.append("lower is better" if spec.direction == "min" else "higher is better")
    suffix = f" ({', '.join(notes)})" if notes else ""
    axes.set_ylabel(letters.plain(name, 40) + letters.plain(suffix), fontsize=9)
    if values and min(values) > 0 and max(values) >= _LOG_RATIO_METRIC * min(values):
        axes.set_yscale("log")


def plot_hyperparameter(
    axes: Any, key: str, measured: Sequence[tuple[SeedGroup, float]], searched: bool, letters: Lettering
) -> None:
    """Plot a dot for each run, and the mean and deviation for each repeated value unless the runs were searched."""
    along = axis_scale([group.config.get(key) for group, _ in measured])
    heights: dict[float, list[float]] = {}
    for position, (_, value) in zip(along.positions, measured, strict=True):
        heights.setdefault(position, []).append(value)
    axes.plot(along.positions, [value for _, value in measured], "o", alpha=0.5, markersize=5, gid=DOTS)
    if not searched and len(heights) < len(measured):
        summaries = {position: summarize(values) for position, values in sorted(heights.items())}
        axes.errorbar(
            list(summaries),
            [summary.mean for summary in summaries.values()],
            yerr=[summary.std or 0.0 for summary in summaries.values()],
            capsize=3,
            linestyle="none" if along.labels else "-",
            marker="s",
            label="mean ± standard deviation",
        )
        axes.legend(fontsize=7)
    if along.logarithmic:
        axes.set_xscale("log")
    if along.labels:
        step = math.ceil(len(along.labels) / _MAX_NAMES)
        names = letters.values(group.config.get(key) for group, _ in measured)
        named = [names[text] for text in along.labels]
        axes.set_xticks(range(0, len(named), step), labels=named[::step], **_rotation(named[::step]))
    elif _fits_all_values(along):  # tick the values themselves instead of round numbers
        named = [f"{value:.4g}" for value in sorted(heights)]
        axes.set_xticks(sorted(heights), labels=named, **_rotation(named))
        if along.logarithmic:
            axes.minorticks_off()
    axes.set_xlabel(letters.plain(key))


def _fits_all_values(along: AxisScale) -> bool:
    """Return whether each value can have a tick label of its own."""
    positions = sorted(set(along.normalized()))
    gaps = [after - before for before, after in pairwise(positions)]
    return len(positions) <= _MAX_TICKS and min(gaps, default=1.0) >= 1 / _MAX_TICKS


def _rotation(names: Sequence[str]) -> dict[str, Any]:
    """Return matplotlib's text options for names at the lower axis: level if they fit, else slanted or upright."""
    needed = len(names) * max(map(len, names), default=0)  # each name is as far from the next as the longest one needs
    if sum(map(len, names)) <= _MAX_LEVEL_LETTERS and needed <= 2 * _MAX_LEVEL_LETTERS:
        return {}
    many = len(names) > _MAX_TICKS
    return {"rotation": 90 if many else 30, "ha": "center" if many else "right", "fontsize": 6 if many else 8}


def plot_parallel(
    figure: Any,
    keys: Sequence[str],
    measured: Sequence[tuple[SeedGroup, float]],
    last_name: str,
    spec: MetricSpec | None,
    letters: Lettering,
) -> None:
    """Plot a line for each run through its hyperparameters to its metric; the better the metric, the brighter."""
    axes = figure.subplots()
    scales = [axis_scale([group.config.get(key) for group, _ in measured]) for key in keys]
    last = AxisScale(tuple(value for _, value in measured), False, ())
    columns = [along.normalized() for along in (*scales, last)]
    for *heights, end in zip(*columns, strict=True):
        bright = 1 - end if spec is not None and spec.direction == "min" else end
        axes.plot(range(len(columns)), [*heights, end], color=line_color(bright))
    labels = [letters.values(group.config.get(key) for group, _ in measured) for key in keys]
    for x, (along, names) in enumerate(zip((*scales, last), (*labels, dict[str, str]()), strict=True)):
        axes.axvline(x, color="black", linewidth=0.8)
        written = -1.0
        for text, height in _ticks(along):
            if height - written >= _MIN_LABEL_GAP:
                axes.text(x, height, names.get(text, text), fontsize=8, va="center", backgroundcolor=(1, 1, 1, 0.6))
                written = height
    axes.set_xlim(-0.2, len(columns) - 0.3)  # leaves room for the labels of the last axis
    named = [letters.plain(name, 30) for name in (*keys, last_name)]
    axes.set_xticks(range(len(columns)), labels=named, **{"fontsize": 8, **_rotation(named)})
    axes.set_yticks([])


def line_color(bright: float) -> tuple[float, ...]:
    """Return a color for 0 to 1 that is seen on a white and on a dark page."""
    from matplotlib import colormaps

    color: tuple[float, ...] = colormaps["viridis"](0.25 + 0.5 * bright)  # its ends are nearly black and nearly white
    return color


def _ticks(along: AxisScale) -> list[tuple[str, float]]:
    """Return tick labels of an upright axis with their heights: each label, or the smallest and largest number."""
    heights = dict(zip(along.positions, along.normalized(), strict=True))
    if along.labels:
        every = math.ceil(len(heights) / _MAX_TICKS)
        return [(along.labels[int(position)], height) for position, height in sorted(heights.items())][::every]
    return [(f"{value:.4g}", heights[value]) for value in sorted({min(heights), max(heights)})]
