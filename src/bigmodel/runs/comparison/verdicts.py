"""Whether one point is better than another, in numbers and in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison import formatting as words
from bigmodel.runs.comparison import significance as statistics
from bigmodel.runs.comparison.significance import TTestResult

SIGNIFICANCE_LEVEL = 0.05  # of the p-value, after Holm's correction
Values = Mapping[Any, float]  # of one metric, by seed


@dataclass(frozen=True)
class Comparison:
    """The best point against another. Without `difference` there is no test: a side has one run only."""

    best: str
    other: str
    difference: TTestResult | None
    p: float | None  # after Holm's correction
    comparisons: int  # that were corrected for


def compare_to_best(points: Mapping[str, Values], spec: MetricSpec) -> list[Comparison]:
    """The best point by its mean against each of the others, in the order of their means; points without values are
    left out. Runs are paired where both points have the same seeds: the luck that a seed brings to both cancels.
    """
    ranked = ranking(points, spec)
    if len(ranked) < 2:
        return []
    best, *others = ranked
    differences = [_difference(points[best], points[other]) for other in others]
    tested = [found.p for found in differences if found is not None and found.p is not None]
    raised = iter(statistics.holm_correction(tested))
    return [
        Comparison(best, other, found, None if found is None or found.p is None else next(raised), len(tested))
        for other, found in zip(others, differences, strict=True)
    ]


def ranking(points: Mapping[str, Values], spec: MetricSpec) -> list[str]:
    """The names of the points that have values, the best mean first."""
    means = {name: statistics.summary(list(values.values())).mean for name, values in points.items() if values}
    return sorted(means, key=means.__getitem__, reverse=spec.direction == "max")


def describe_comparison(found: Comparison, points: Mapping[str, Values], spec: MetricSpec) -> str:
    """A line on one comparison."""
    best, other = (statistics.summary(list(points[name].values())) for name in (found.best, found.other))
    figures = f"{words.format_mean_std(best)} against {words.format_mean_std(other)}"
    pair = f"{found.best} and {found.other}"
    if found.difference is None:
        which = "one run each" if best.n == other.n else f"{found.best if best.n == 1 else found.other} has one run"
        return f"{pair}: {figures}; {which}, so nothing can be said; train with seeds=5"
    difference = found.difference
    if found.p is None:
        return f"{pair}: {figures}; no seed changed anything, so there is no chance to measure it by"
    if found.p < SIGNIFICANCE_LEVEL:
        verdict = f"{found.best} is better than {found.other}"
    else:
        verdict = f"no difference shown between {pair}"
    gap, interval = words.format_difference(difference, 100 if spec.is_share else 1)
    paired = f"paired over {difference.n} seeds" if difference.paired else f"{best.n} and {other.n} runs, not paired"
    corrected = f" (Holm, {found.comparisons} comparisons)" if found.comparisons > 1 else ""
    return (
        f"{verdict}: {figures}, difference {gap}{' points' if spec.is_share else ''}, 95 % interval {interval}, "
        f"{paired}, {words.format_p_value(found.p)}{corrected}"
    )


def _difference(first: Values, second: Values) -> TTestResult | None:
    if min(len(first), len(second)) < 2:
        return None
    if set(first) == set(second):
        return statistics.paired_t_test(list(first.values()), [second[seed] for seed in first])
    return statistics.welch_t_test(list(first.values()), list(second.values()))
