"""Draw one curve over a logarithmic axis as a PNG, with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 560, 90, 30, 50, 70
_FINER = 3  # times as large while it is drawn: Pillow draws hard edges
_INK, _GRID, _LINE, _MARK = "#222222", "#dddddd", "#1f5fa8", "#c0392b"
_DIVISIONS = 5  # of the upright axis


def draw_curve(
    file: Path, xs: Sequence[float], ys: Sequence[float], *, mark: float, title: str, x: str, y: str
) -> None:
    """Write the curve through (xs, ys), finite and with two points or more; `mark` is an x to draw a line at."""
    image = Image.new("RGB", (_WIDTH * _FINER, _HEIGHT * _FINER), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(15 * _FINER)
    low, high = min(ys), max(ys)
    high = high if high > low else low + 1
    first, last = math.log10(xs[0]), math.log10(xs[-1])

    def place(value: float, height: float) -> tuple[float, float]:
        right = (math.log10(value) - first) / (last - first)
        up = (height - low) / (high - low)
        across, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return (_LEFT + right * across) * _FINER, (_HEIGHT - _BOTTOM - up * tall) * _FINER

    for decade in range(math.ceil(first), math.floor(last) + 1):
        foot = place(10.0**decade, low)
        draw.line([foot, place(10.0**decade, high)], _GRID, _FINER)
        draw.text((foot[0], foot[1] + 8 * _FINER), f"1e{decade}", _INK, font, anchor="mt")
    for division in range(_DIVISIONS + 1):
        height = low + (high - low) * division / _DIVISIONS
        left = place(xs[0], height)
        draw.line([left, place(xs[-1], height)], _GRID, _FINER)
        draw.text((left[0] - 8 * _FINER, left[1]), f"{height:.3g}", _INK, font, anchor="rm")
    draw.line([place(mark, low), place(mark, high)], _MARK, 2 * _FINER)
    draw.line([place(*point) for point in zip(xs, ys, strict=True)], _LINE, 2 * _FINER, joint="curve")
    draw.text((_LEFT * _FINER, 16 * _FINER), title, _INK, font)
    draw.text((_WIDTH * _FINER / 2, (_HEIGHT - 28) * _FINER), x, _INK, font, anchor="mt")
    draw.text((16 * _FINER, 16 * _FINER), y, _INK, font)
    image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS).save(file)
