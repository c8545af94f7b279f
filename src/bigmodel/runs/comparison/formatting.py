"""Format means, intervals, p-values and ages."""

from __future__ import annotations

import math

from bigmodel.runs.comparison.significance import Summary, TTestResult

NO_VALUE = "-"


def format_mean_std(summary: Summary | None) -> str:
    """Return `0.9123 ± 0.0041`, with two digits of the deviation, or `0.9123` for a single value."""
    if summary is None:
        return NO_VALUE
    mean, std = summary.mean, summary.std
    if std is None:
        return format_number(mean)
    digits = _decimals(std)
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if digits is not None else f"{mean:.4g} ± {std:.2g}"


def format_interval(low: float | None, high: float | None) -> str:
    """Return `0.907 to 0.917`, with two digits of its width, or `-` without an interval."""
    if low is None or high is None:
        return NO_VALUE
    digits = _decimals(high - low)
    return f"{low:.{digits}f} to {high:.{digits}f}" if digits is not None else f"{low:.4g} to {high:.4g}"


def format_difference(test: TTestResult, scale: float) -> tuple[str, str]:
    """Return the difference and its interval, both multiplied by `scale`, with the same number of decimals."""
    mean, low, high = (scale * number for number in (test.mean, test.low, test.high))
    digits = _decimals(high - low)
    return (f"{mean:.{digits}f}" if digits is not None else f"{mean:.4g}"), format_interval(low, high)


def format_number(number: float | None) -> str:
    """Return four decimals between 0.001 and 1, else four significant digits; `-` for None."""
    if number is None:
        return NO_VALUE
    return f"{number:.4f}" if 0.001 <= abs(number) <= 1 else f"{number:.4g}"


def format_p_value(p: float) -> str:
    """Return `p = 0.012` or `p < 0.0001`."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def format_age(seconds: float) -> str:
    """Return an age as `12s`, `5m`, `3h` or `2d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _decimals(spread: float) -> int | None:
    """Return the number of decimals that show two digits of a spread, or None if the number would be extreme."""
    if spread == 0:
        return 4
    return max(0, 1 - math.floor(math.log10(spread))) if 1e-6 < spread < 1e6 else None
