"""Means over seeds, and t-tests of their differences.

Student's t needs one special function, the regularized incomplete beta function, which is written out here: SciPy would
cost more to install and to import than these twenty lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_NORMAL_QUANTILE = 1.959963984540054  # of the same confidence, on both sides
_ROUNDING = 1e-12  # relative; a smaller spread is rounding error
_TINY = 1e-300
_MAX_TERMS = 100_000  # of the continued fraction, which needs about sqrt(degrees of freedom)


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation and 95 % confidence interval of the mean of `n` values.

    A single value has neither deviation nor interval. The fields go to JSON.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class TTestResult:
    """Difference of two means, its 95 % confidence interval and its two-sided p-value.

    `p` is None if no value varies within either side. `freedom` is the degrees of freedom. The fields go to JSON.
    """

    mean: float
    low: float
    high: float
    p: float | None
    freedom: float
    paired: bool
    n: int  # number of pairs, or of values of both sides


def summarize(values: Sequence[float]) -> Summary:
    """Summarize one or more values."""
    n, mean = len(values), _mean(values)
    if n < 2:
        return Summary(n, mean, None, None, None)
    std = math.sqrt(_variance(values))
    half = t_quantile(n - 1) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval (JASA 22, 1927) of a probability of which `n` independent trials gave `share`."""
    z2 = _NORMAL_QUANTILE**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, center - half), min(1.0, center + half)


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> TTestResult:
    """Student's t-test on differences of paired values, such as runs of one seed; at least two pairs."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n = len(differences)
    error = math.sqrt(_variance(differences) / n)
    return _difference(_mean(differences), error, n - 1, _scale(first, second), pairs=n)


def welch_t_test(first: Sequence[float], second: Sequence[float]) -> TTestResult:
    """Welch's t-test (Biometrika 34, 1947) for unequal variances; at least two values on each side."""
    squared_errors = [_variance(values) / len(values) for values in (first, second)]
    error = math.sqrt(sum(squared_errors))
    sizes = (len(first), len(second))
    if error > _ROUNDING * _scale(first, second):
        largest = max(squared_errors)
        scaled = [squared / largest for squared in squared_errors]  # so that no square underflows
        freedom = sum(scaled) ** 2 / sum(value**2 / (n - 1) for value, n in zip(scaled, sizes, strict=True))
    else:
        freedom = sum(sizes) - 2
    return _difference(_mean(first) - _mean(second), error, freedom, _scale(first, second), values=sum(sizes))


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values, which control the family-wise error rate (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def t_two_sided_p(t: float, freedom: float) -> float:
    """Return the probability that Student's t lies further from 0 than `t`, on either side."""
    square = t * t
    if math.isinf(square):
        return 0.0
    return _incomplete_beta(freedom / (freedom + square), square / (freedom + square), freedom / 2, 0.5)


def t_quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """Return the bound that the absolute value of Student's t stays below with this probability."""
    return _bisect(lambda t: t_two_sided_p(t, freedom) > 1 - confidence)


def _bisect(below: Callable[[float], bool]) -> float:
    """Return the positive number up to which `below` holds, by bisection to the last bit."""
    low, high = 0.0, 1.0
    while below(high):
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if below(middle) else (low, middle)
    return high


def _difference(
    mean: float, error: float, freedom: float, scale: float, pairs: int | None = None, values: int = 0
) -> TTestResult:
    if error > _ROUNDING * scale:
        p: float | None = t_two_sided_p(mean / error, freedom)
    else:
        p, error = (1.0 if abs(mean) <= _ROUNDING * scale else None), 0.0
    half = t_quantile(freedom) * error
    return TTestResult(mean, mean - half, mean + half, p, freedom, pairs is not None, pairs or values)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _scale(*samples: Sequence[float]) -> float:
    return max(abs(value) for values in samples for value in values)


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """Regularized incomplete beta function I_x(a, b). `rest` is 1 - x, passed separately because x may round to 1."""
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges slowly there
        return 1 - _incomplete_beta(rest, x, b, a)
    front = a * math.log(x) + b * math.log(rest) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) / (a * _beta_fraction(x, a, b))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction 1 + d1/(1 + d2/(1 + ...)), Abramowitz & Stegun 26.5.8, by Lentz's method."""
    value, numerator, denominator = 1.0, 1.0, 0.0
    for term in range(1, _MAX_TERMS):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / (1 + d * denominator or _TINY)
        numerator = 1 + d / numerator or _TINY
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-15:
            break
    return value
