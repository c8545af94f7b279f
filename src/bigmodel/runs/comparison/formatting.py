"""Means, intervals and times as people read them."""

from __future__ import annotations

import math

from bigmodel.runs.comparison.significance import Summary, TTestResult

NO_VALUE = "-"


def format_mean_std(of: Summary | None) -> str:
    """`0.9123 ± 0.0041`, the deviation to two digits; `0.9123` of a single value."""
    if of is None:
        return NO_VALUE
    if of.std is None:
        return format_number(of.mean)
    digits = _digits(of.std)
    return f"{of.mean:.{digits}f} ± {of.std:.{digits}f}" if digits is not None else f"{of.mean:.4g} ± {of.std:.2g}"


def format_interval(low: float | None, high: float | None) -> str:
    """`0.907 to 0.917`, to two digits of its width; `-` where there is none."""
    if low is None or high is None:
        return NO_VALUE
    digits = _digits(high - low)
    return f"{low:.{digits}f} to {high:.{digits}f}" if digits is not None else f"{low:.4g} to {high:.4g}"


def format_difference(of: TTestResult, scale: float) -> tuple[str, str]:
    """The difference and its interval, both times `scale` and to the same places."""
    gap, low, high = (scale * number for number in (of.mean, of.low, of.high))
    digits = _digits(high - low)
    return (f"{gap:.{digits}f}" if digits is not None else f"{gap:.4g}"), format_interval(low, high)


def format_number(number: float | None) -> str:
    """Four digits, of which no zero at the end is dropped between 0.001 and 1."""
    if number is None:
        return NO_VALUE
    return f"{number:.4f}" if 0.001 <= abs(number) <= 1 else f"{number:.4g}"


def format_p_value(p: float) -> str:
    """`p = 0.012`, or `p < 0.0001`."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def format_age(seconds: float) -> str:
    """`12s`, `5m`, `3h` or `2d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _digits(spread: float) -> int | None:
    """Places after the point that show two digits of the spread; None where they would be too many."""
    if spread == 0:
        return 4
    return max(0, 1 - math.floor(math.log10(spread))) if 1e-6 < spread < 1e6 else None
