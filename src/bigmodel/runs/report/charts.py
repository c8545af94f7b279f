"""Charts of a page: lines over steps or epochs, bars, points. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bigmodel.formatting import format_count
from bigmodel.runs.report.html import figure
from bigmodel.runs.report.svg import GRID, HOVER, INK, MUTED, SERIES, SvgWriter

SIZE = (3.9, 2.5)  # inches: as wide as a phone, so that text is never drawn smaller than it reads
_FRAME = (0.16, 0.15, 0.82, 0.80)  # of the axes; a fixed one, because fitting it to the labels takes longer
_MAX_POINTS = 400  # of a line
_MAX_DOTS = 30  # of a line whose points are seen
_MAX_TIPS = 50  # of a line
_MAX_TICKS = 6  # of an axis
_STEPS = [1, 2, 2.5, 5, 10]  # between ticks
_LOG_RATIO = 100  # largest over smallest value from which the upright axis is logarithmic


@dataclass(frozen=True)
class Series:
    """A named line. `color` is an index of the palette; `gray` draws it thin and without a name."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int = 0
    dashed: bool = False
    gray: bool = False


def thin(series: Series, limit: int = _MAX_POINTS) -> Series:
    """Keep about `limit` points: of each stretch its lowest and its highest, so that no peak is lost."""
    num = len(series.xs)
    if num <= limit:
        return series
    stretch = math.ceil(2 * num / limit)
    kept = {0, num - 1}
    for begin in range(0, num, stretch):
        indices = range(begin, min(begin + stretch, num))
        kept |= {min(indices, key=series.ys.__getitem__), max(indices, key=series.ys.__getitem__)}
    order = sorted(kept)
    return replace(series, xs=[series.xs[i] for i in order], ys=[series.ys[i] for i in order])


def line_chart(
    writer: SvgWriter,
    title: str,
    series: Sequence[Series],
    x_name: str,
    text: Callable[[float], str],
    star: tuple[float, float] | None = None,
    note: str = "",
    linear: bool = False,
    is_share: bool = False,
) -> str:
    """Return a figure with these lines; empty without points. `text` formats a value; `star` marks the best one.

    The upright axis is logarithmic where values differ much, unless `linear` or `is_share`.
    """
    drawn = [thin(one) for one in series if len(one.xs)]
    if not drawn:
        return ""
    values = [value for one in drawn for value in one.ys]
    with writer.style():
        axes = new_axes()
        tips: list[list[str]] = []
        for one in drawn:
            color = MUTED if one.gray else SERIES[one.color % len(SERIES)]
            width, opacity = (0.8, 0.5) if one.gray else (1.6, 1.0)
            style = {"color": color, "linewidth": width, "alpha": opacity, "linestyle": "--" if one.dashed else "-"}
            dots = {"marker": "o", "markersize": 6 if len(one.xs) == 1 else 3} if len(one.xs) <= _MAX_DOTS else {}
            axes.plot(one.xs, one.ys, **style, **dots)
            if not one.gray:
                every = max(1, math.ceil(len(one.xs) / _MAX_TIPS))
                xs, ys = one.xs[::every], one.ys[::every]
                axes.plot(xs, ys, "o", markersize=9, alpha=0, gid=f"{HOVER}-{len(tips)}")  # large enough to point at
                tips.append([f"{one.name}: {text(y)} at {x_name} {x:g}" for x, y in zip(xs, ys, strict=True)])
        if star is not None:
            axes.plot(*star, "*", color=INK, markersize=9, gid=f"{HOVER}-{len(tips)}")
            tips.append([f"best: {text(star[1])} at {x_name} {star[0]:g}"])
        if min(values) > 0 and max(values) >= _LOG_RATIO * min(values) and not is_share and not linear:
            axes.set_yscale("log")
        _format_axes(axes, is_share, x_name)
        if min(x for one in drawn for x in one.xs) >= 0:  # so that all charts of a run have the same axis
            axes.set_xlim(0, 1.02 * max(x for one in drawn for x in one.xs) or 1)
        ends = ", ".join(f"{one.name} from {text(one.ys[0])} to {text(one.ys[-1])}" for one in drawn[:6])
        drawing = writer.to_svg(axes.figure, f"{title}: {ends}", tips)
    legend = list(dict.fromkeys((f"c{one.color % len(SERIES)}", one.name) for one in drawn if not one.gray))
    return figure(drawing, title, legend if len(drawn) > 1 else (), note)


def new_axes(size: tuple[float, float] = SIZE) -> Any:
    """Return the axes of a new figure; call it within the writer's style."""
    from matplotlib.figure import Figure  # without pyplot, so no display is needed

    return Figure(figsize=size).add_axes(_FRAME)


def _format_axes(axes: Any, is_share: bool, x_name: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(_MAX_TICKS, steps=_STEPS))
    axes.margins(x=0.02)
    axes.set_xlabel(x_name, labelpad=2)
    axes.tick_params(length=0)
    if is_share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.5g} %"))
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(_MAX_TICKS, steps=_STEPS))  # each tick costs about as much as a line
    if axes.get_yscale() == "linear" and not is_share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value)))


def tick_label(value: float) -> str:
    """Format a value in at most eight letters, or nine with a sign: more have no room beside the axis."""
    if value and not 1e-3 <= abs(value) < 1e6:
        digits, _, power = f"{value:.3e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def reliability_chart(writer: SvgWriter, title: str, bins: Sequence[tuple[float, float, int]], note: str = "") -> str:
    """Return a figure of accuracy over confidence, from (mean confidence, accuracy, samples) of each bin."""
    shown = [one for one in bins if one[2]]
    if not shown:
        return ""
    most = max(count for _, _, count in shown)
    with writer.style():
        axes = new_axes()
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=0.8)
        axes.bar([x for x, _, _ in shown], [n / most * 0.15 for _, _, n in shown], width=0.03, color=GRID)
        axes.plot([x for x, _, _ in shown], [y for _, y, _ in shown], color=SERIES[0])
        axes.plot([x for x, _, _ in shown], [y for _, y, _ in shown], "o", color=SERIES[0], gid=f"{HOVER}-0")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        _format_axes(axes, True, "confidence")
        tips = [[f"{format_count(n, 'prediction')}, {x:.0%} confident on average: {y:.1%} right" for x, y, n in shown]]
        drawing = writer.to_svg(axes.figure, f"{title}: " + "; ".join(tips[0]), tips)
    legend = [("c0", "share that is right"), ("muted", "perfectly calibrated"), ("grid", "number of predictions")]
    return figure(drawing, title, legend, note)


def scatter_chart(
    writer: SvgWriter, title: str, xs: Sequence[float], ys: Sequence[float], x_name: str, y_name: str, note: str = ""
) -> str:
    """Return a figure of predicted over true values, with the diagonal."""
    if not xs:
        return ""
    low, high = min(*xs, *ys), max(*xs, *ys)
    with writer.style():
        axes = new_axes()
        axes.plot([low, high], [low, high], color=MUTED, linestyle="--", linewidth=0.8)
        axes.plot(xs, ys, "o", color=SERIES[0], alpha=0.5, markersize=3, markeredgewidth=0, gid=f"{HOVER}-0")
        _format_axes(axes, False, x_name)
        tips = [[f"true {x:.4g}, predicted {y:.4g}" for x, y in zip(xs, ys, strict=True)]]
        drawing = writer.to_svg(axes.figure, f"{title}: {format_count(len(xs), 'sample')}", tips)
    return figure(drawing, title, [("c0", f"{y_name} of a sample"), ("muted", "predicted = true")], note)
