"""A sweep in pictures: the metric over each hyperparameter, parallel coordinates, learning curves. Needs matplotlib."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison import significance as statistics
from bigmodel.runs.comparison.learning_curves import draw_curves
from bigmodel.runs.comparison.lettering import Lettering, lettering
from bigmodel.runs.comparison.seed_groups import SeedGroup, shown
from bigmodel.runs.records import number
from bigmodel.safe_files import own_folder

_WIDE = 10  # the largest value over the smallest from which an axis is logarithmic
_SPREAD = 100  # the same for the metric's own axis
_MOST_TICKS = 12
_MOST_NAMES = 40  # of values that are no numbers, at one axis
_LONG = 50  # letters of all names at an axis, from which they are turned
_APART = 0.035  # of an axis's height, between two values written beside it
_DPI = 120


@dataclass(frozen=True)
class AxisScale:
    """Where the values of a hyperparameter lie on an axis: as numbers, or by their rank where some are none."""

    positions: tuple[float, ...]
    logarithmic: bool
    labels: tuple[str, ...]  # of the positions 0, 1, ...; none where the positions are the numbers themselves

    def unit(self) -> list[float]:
        """The positions from 0 to 1, in the middle where there is one only."""
        low, high = min(self.positions), max(self.positions)
        if low == high:
            return [0.5] * len(self.positions)
        if self.logarithmic:
            return [math.log(value / low) / math.log(high / low) for value in self.positions]
        return [(value - low) / (high - low) for value in self.positions]


def scale(values: Sequence[Any]) -> AxisScale:
    """The axis on which these values lie."""
    numbers = [number(value) for value in values]
    present = [value for value in numbers if value is not None]
    if values and len(present) == len(values):
        return AxisScale(tuple(present), min(present) > 0 and max(present) >= _WIDE * min(present), ())
    labels = sorted({shown(value) for value in values})
    return AxisScale(tuple(float(labels.index(shown(value))) for value in values), False, tuple(labels))


def file_name(key: str) -> str:
    """`over_optim.lr.png`; what a key may hold besides letters is replaced."""
    return f"over_{re.sub(r'[^A-Za-z0-9_.-]', '_', key)[:100]}.png"


def draw(
    directory: Path,
    points: Sequence[SeedGroup],
    keys: Sequence[str],
    monitor: str,
    spec: MetricSpec | None = None,
    searched: bool = False,
) -> tuple[list[Path], str]:
    """Write the plots as PNG. Returns their paths, and a line on letters that no font has.

    `spec` is what the runs declare of the monitored metric. Runs of a search were `searched`: the mean over what else
    varies says nothing of them, for it varies on purpose.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: they cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure  # a figure of its own needs neither pyplot nor a display

    values = [shown(point.config.get(key)) for point in points for key in keys]
    letters = lettering([monitor, *keys, *values])
    measured = [(point, value) for point in points for value in point.values("best").values()]
    figures: dict[str, Any] = {}
    with matplotlib.rc_context({"font.family": list(letters.families)}):
        for key in keys if measured else ():
            figures[file_name(key)] = figure = Figure(figsize=(6, 4), layout="constrained")
            axes = figure.subplots()
            _plot_hyperparameter(axes, key, measured, searched, letters)
            name_metric(axes, f"best {monitor}", [value for _, value in measured], spec, letters)
        if keys and measured:
            width = 2 + 1.6 * len(keys)
            figures["parallel_coordinates.png"] = figure = Figure(figsize=(max(6, width), 4.5), layout="constrained")
            _parallel(figure, keys, measured, f"best {monitor}", spec, letters)
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.subplots()
        heights = draw_curves(axes, points, keys, monitor, spec, letters)
        if heights:  # where nothing was evaluated there is nothing to look at
            name_metric(axes, monitor, heights, spec, letters)
            figures["learning_curves.png"] = figure
        if figures:
            own_folder(directory)
        for name, figure in figures.items():
            (directory / name).unlink(missing_ok=True)  # or a link in its place would be followed
            figure.savefig(directory / name, dpi=_DPI)
    return [directory / name for name in figures], letters.note


def name_metric(axes: Any, name: str, values: Sequence[float], spec: MetricSpec | None, letters: Lettering) -> None:
    """The upright axis of a metric: its name, its unit, and which end is the better one."""
    about = [spec.unit] if spec is not None and spec.unit else []
    if spec is not None and spec.direction != "none":
        about.append("lower is better" if spec.direction == "min" else "higher is better")
    told = f" ({', '.join(about)})" if about else ""
    axes.set_ylabel(letters.plain(name, 40) + letters.plain(told), fontsize=9)
    if values and min(values) > 0 and max(values) >= _SPREAD * min(values):
        axes.set_yscale("log")


def _plot_hyperparameter(
    axes: Any, key: str, measured: Sequence[tuple[SeedGroup, float]], searched: bool, letters: Lettering
) -> None:
    """A dot for each run; where values of the hyperparameter come again, unless they were searched, the mean and the
    deviation of each, over all that else varies.
    """
    along = scale([point.config.get(key) for point, _ in measured])
    heights: dict[float, list[float]] = {}
    for position, (_, value) in zip(along.positions, measured, strict=True):
        heights.setdefault(position, []).append(value)
    axes.plot(along.positions, [value for _, value in measured], "o", alpha=0.5, markersize=5)
    if not searched and len(heights) < len(measured):
        found = {position: statistics.summary(values) for position, values in sorted(heights.items())}
        axes.errorbar(
            list(found),
            [of.mean for of in found.values()],
            yerr=[of.std or 0.0 for of in found.values()],
            capsize=3,
            linestyle="none" if along.labels else "-",
            marker="s",
            label="mean ± standard deviation",
        )
        axes.legend(fontsize=7)
    if along.logarithmic:
        axes.set_xscale("log")
    if along.labels:
        step = math.ceil(len(along.labels) / _MOST_NAMES)
        names = letters.values(point.config.get(key) for point, _ in measured)
        named = [names[text] for text in along.labels]
        axes.set_xticks(range(0, len(named), step), labels=named[::step], **_turned(named[::step]))
    elif _have_room(along):  # the values themselves say more than round numbers
        named = [f"{value:.4g}" for value in sorted(heights)]
        axes.set_xticks(sorted(heights), labels=named, **_turned(named))
        if along.logarithmic:
            axes.minorticks_off()
    axes.set_xlabel(letters.plain(key))


def _have_room(along: AxisScale) -> bool:
    """Whether each value can be written at its place."""
    places = sorted(set(along.unit()))
    gaps = [after - before for before, after in pairwise(places)]
    return len(places) <= _MOST_TICKS and min(gaps, default=1.0) >= 1 / _MOST_TICKS


def _turned(names: Sequence[str]) -> dict[str, Any]:
    """How names stand at the lower axis: level where there is room, else slanting or upright."""
    if sum(map(len, names)) <= _LONG and len(names) * max(map(len, names), default=0) <= 2 * _LONG:
        return {}
    many = len(names) > _MOST_TICKS
    return {"rotation": 90 if many else 30, "ha": "center" if many else "right", "fontsize": 6 if many else 8}


def _parallel(
    figure: Any,
    keys: Sequence[str],
    measured: Sequence[tuple[SeedGroup, float]],
    last_name: str,
    spec: MetricSpec | None,
    letters: Lettering,
) -> None:
    """A line for each run through its hyperparameters to its metric, which colours it: the better, the brighter."""
    from matplotlib import colormaps

    axes = figure.subplots()
    scales = [scale([point.config.get(key) for point, _ in measured]) for key in keys]
    last = AxisScale(tuple(value for _, value in measured), False, ())
    columns = [along.unit() for along in (*scales, last)]
    for *heights, end in zip(*columns, strict=True):
        bright = 1 - end if spec is not None and spec.direction == "min" else end
        axes.plot(range(len(columns)), [*heights, end], color=colormaps["viridis"](bright), alpha=0.7)
    labels = [letters.values(point.config.get(key) for point, _ in measured) for key in keys]
    for x, (along, names) in enumerate(zip((*scales, last), (*labels, dict[str, str]()), strict=True)):
        axes.axvline(x, color="black", linewidth=0.8)
        written = -1.0
        for text, height in _ticks(along):
            if height - written >= _APART:
                axes.text(x, height, names.get(text, text), fontsize=8, va="center", backgroundcolor=(1, 1, 1, 0.6))
                written = height
    axes.set_xlim(-0.2, len(columns) - 0.3)  # room for what stands at the last axis
    named = [letters.plain(name, 30) for name in (*keys, last_name)]
    axes.set_xticks(range(len(columns)), labels=named, **{"fontsize": 8, **_turned(named)})
    axes.set_yticks([])


def _ticks(along: AxisScale) -> list[tuple[str, float]]:
    """What stands at an upright axis: each label, or the smallest and the largest number, with its height."""
    heights = dict(zip(along.positions, along.unit(), strict=True))
    if along.labels:
        every = math.ceil(len(heights) / _MOST_TICKS)
        return [(along.labels[int(position)], height) for position, height in sorted(heights.items())][::every]
    return [(f"{value:.4g}", heights[value]) for value in sorted({min(heights), max(heights)})]
