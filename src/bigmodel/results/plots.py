"""A sweep in pictures: the metric over each hyperparameter, parallel coordinates, learning curves. Needs matplotlib."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigmodel import statistics
from bigmodel.durable import own_folder
from bigmodel.results.points import Point, shown
from bigmodel.results.reading import course, number

_WIDE = 10  # the largest value over the smallest from which an axis is logarithmic
_LEGEND = 10  # points that a legend can tell apart
_MOST_TICKS = 12
_DPI = 120


@dataclass(frozen=True)
class Scale:
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


def scale(values: Sequence[Any]) -> Scale:
    """The axis on which these values lie."""
    numbers = [number(value) for value in values]
    present = [value for value in numbers if value is not None]
    if values and len(present) == len(values):
        return Scale(tuple(present), min(present) > 0 and max(present) >= _WIDE * min(present), ())
    labels = sorted({shown(value) for value in values})
    return Scale(tuple(float(labels.index(shown(value))) for value in values), False, tuple(labels))


def file_name(key: str) -> str:
    """`over_optim.lr.png`; what a key may hold besides letters is replaced."""
    return f"over_{re.sub(r'[^A-Za-z0-9_.-]', '_', key)[:100]}.png"


def draw(directory: Path, points: Sequence[Point], keys: Sequence[str], monitor: str) -> list[Path]:
    """Write the plots as PNG and return their paths.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: they cannot be written.
    """
    from matplotlib.figure import Figure  # a figure of its own needs neither pyplot nor a display

    measured = [(point, value) for point in points for value in point.values("best").values()]
    figures: dict[str, Any] = {}
    for key in keys if measured else ():
        figures[file_name(key)] = figure = Figure(figsize=(6, 4), layout="constrained")
        _over(figure.subplots(), key, measured, monitor)
    if keys and measured:
        width = 2 + 1.5 * len(keys)
        figures["parallel_coordinates.png"] = figure = Figure(figsize=(max(6, width), 4), layout="constrained")
        _parallel(figure, keys, measured, monitor)
    figures["learning_curves.png"] = figure = Figure(figsize=(7, 4.5), layout="constrained")
    _curves(figure.subplots(), points, keys, monitor)
    own_folder(directory)
    for name, figure in figures.items():
        (directory / name).unlink(missing_ok=True)  # or a link in its place would be followed
        figure.savefig(directory / name, dpi=_DPI)
    return [directory / name for name in figures]


def _over(axes: Any, key: str, measured: Sequence[tuple[Point, float]], monitor: str) -> None:
    """A dot for each run; the mean and the deviation of each value of the hyperparameter, over all that else varies."""
    along = scale([point.config.get(key) for point, _ in measured])
    heights: dict[float, list[float]] = {}
    for position, (_, value) in zip(along.positions, measured, strict=True):
        heights.setdefault(position, []).append(value)
    axes.plot(along.positions, [value for _, value in measured], "o", alpha=0.4, markersize=4)
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
        if len(found) <= _MOST_TICKS:  # the values themselves say more than powers of ten
            axes.set_xticks(list(found), labels=[f"{value:.4g}" for value in found])
            axes.minorticks_off()
    if along.labels:
        axes.set_xticks(range(len(along.labels)), labels=[_plain(text) for text in along.labels])
    axes.set_xlabel(_plain(key))
    axes.set_ylabel(_plain(f"best {monitor}"))


def _parallel(figure: Any, keys: Sequence[str], measured: Sequence[tuple[Point, float]], monitor: str) -> None:
    """A line for each run through its hyperparameters to its metric, which colours it."""
    from matplotlib import colormaps

    axes = figure.subplots()
    scales = [scale([point.config.get(key) for point, _ in measured]) for key in keys]
    last = Scale(tuple(value for _, value in measured), False, ())
    columns = [along.unit() for along in (*scales, last)]
    for *heights, end in zip(*columns, strict=True):
        axes.plot(range(len(columns)), [*heights, end], color=colormaps["viridis"](end), alpha=0.7)
    for x, along in enumerate((*scales, last)):
        axes.axvline(x, color="black", linewidth=0.8)
        for text, height in _ticks(along):
            axes.text(x, height, _plain(text), fontsize=8, backgroundcolor=(1, 1, 1, 0.6))
    axes.set_xticks(range(len(columns)), labels=[_plain(name) for name in (*keys, f"best {monitor}")])
    axes.set_yticks([])


def _ticks(along: Scale) -> list[tuple[str, float]]:
    """What stands at an upright axis: each label, or the smallest and the largest number, with its height."""
    heights = dict(zip(along.positions, along.unit(), strict=True))
    if along.labels:
        return [(along.labels[int(position)], height) for position, height in sorted(heights.items())][:_MOST_TICKS]
    return [(f"{value:.4g}", heights[value]) for value in sorted({min(heights), max(heights)})]


def _curves(axes: Any, points: Sequence[Point], keys: Sequence[str], monitor: str) -> None:
    """The metric over the epochs, which all batch sizes share: a line for each run, a colour for each point."""
    split, _, name = monitor.partition("/")
    for index, point in enumerate(points):
        label = " ".join(f"{key}={shown(point.config.get(key))}" for key in keys)
        for run in point.runs:
            epochs, values = _curve(run.path, split, name)
            axes.plot(epochs, values, color=f"C{index % 10}", alpha=0.7, linewidth=1, label=_plain(label))
            label = "_nolegend_"  # one entry a point
    if keys and len(points) <= _LEGEND:
        axes.legend(fontsize=7)
    axes.set_xlabel("epoch")
    axes.set_ylabel(_plain(monitor))


def _curve(path: Path, split: str, name: str) -> tuple[list[float], list[float]]:
    pairs = [(number(event.get("epoch")), number(event.get(name))) for event in course(path) if event["split"] == split]
    whole = [(epoch, value) for epoch, value in pairs if epoch is not None and value is not None]
    return [epoch for epoch, _ in whole], [value for _, value in whole]


def _plain(text: str) -> str:
    """Text that matplotlib takes as it is, not as a formula, and not longer than a label may be."""
    return text[:60].replace("$", r"\$")
