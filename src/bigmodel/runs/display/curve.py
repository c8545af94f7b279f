"""Draw lines over steps as a small SVG. Text and axes take the page's color; the lines are seen on light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bigmodel.runs.display.html import escape

_COLORS = ("#2f7ed8", "#d9730d", "#2e9e6b", "#a060d0", "#d0486e", "#8a8a00", "#1399a8", "#996633")
_MOST_LINES = len(_COLORS)
_WIDTH, _HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 350, 26, 172  # of the axes
_MOST_POINTS = 300  # of a line


@dataclass(frozen=True)
class Line:
    """A named line of points with rising `steps`; one without points is not drawn."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


def draw_lines(title: str, lines: Sequence[Line]) -> str:
    """Return lines as an SVG with a legend below it; empty without points.

    There are at most as many as colors; where more are left out the title says so.
    """
    lines = [line for line in lines if line.values]
    if not lines:
        return ""
    if len(lines) > _MOST_LINES:
        title, lines = f"{title}, the first {_MOST_LINES} of {len(lines)}", lines[:_MOST_LINES]
    low, high = min(min(line.values) for line in lines), max(max(line.values) for line in lines)
    first, last = min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines)
    parts = [
        f'<text x="{_LEFT}" y="14" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{_LEFT},{_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="currentColor" opacity="0.4"/>',
        *(
            f'<text x="{_LEFT - 4}" y="{place + 4}" text-anchor="end">{value:.4g}</text>'
            for value, place in {low: _BOTTOM, high: _TOP}.items()
        ),
        f'<text x="{_LEFT}" y="{_BOTTOM + 14}">{first:g}</text>',
        f'<text x="{_RIGHT}" y="{_BOTTOM + 14}" text-anchor="end">step {last:g}</text>',
    ]
    for line, color in zip(lines, _COLORS, strict=False):
        points = [
            (_place(step, first, last, _LEFT, _RIGHT), _place(value, low, high, _BOTTOM, _TOP))
            for step, value in _thin(line)
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        if len(points) <= 40:
            parts += (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{color}"/>' for x, y in points)
    names = "".join(
        f'<span style="margin-right:1em"><span style="color:{color}">■</span> {escape(line.name)}</span>'
        for line, color in zip(lines, _COLORS, strict=False)
    )
    drawing = (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" font-size="11" fill="currentColor">{"".join(parts)}</svg>'
    )
    shown = f'<div style="font-size:11px;max-width:{_WIDTH}px">{names}</div>'
    return f'<div style="display:inline-block;vertical-align:top">{drawing}{shown}</div>'


def _place(value: float, low: float, high: float, begin: float, end: float) -> float:
    """Return where a value lies between two ends of an axis; in its middle where all values are the same."""
    share = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5  # halves, which cannot overflow
    return begin + (end - begin) * share


def _thin(line: Line) -> Iterator[tuple[float, float]]:
    every = -(-len(line.values) // _MOST_POINTS)
    last = len(line.values) - 1
    for index, pair in enumerate(zip(line.steps, line.values, strict=True)):
        if index % every == 0 or index == last:
            yield pair
