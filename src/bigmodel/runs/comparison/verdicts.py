"""Compare configurations with the best one: t-tests, and a sentence about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison.formatting import format_difference, format_mean_std, format_p_value
from bigmodel.runs.comparison.significance import (
    TTestResult,
    holm_correction,
    paired_t_test,
    summarize,
    welch_t_test,
)

SIGNIFICANCE_LEVEL = 0.05  # for p-values after Holm's correction
Values = Mapping[Any, float]  # one metric by seed


@dataclass(frozen=True)
class Comparison:
    """Best configuration against another; the fields go to JSON. `difference` is None if a side has one run only."""

    best: str
    other: str
    difference: TTestResult | None
    p: float | None  # after Holm's correction
    comparisons: int  # that Holm's correction accounts for


def compare_to_best(values: Mapping[str, Values], spec: MetricSpec) -> list[Comparison]:
    """Compare the configuration with the best mean to each of the others, in the order of their means.

    `values` holds each configuration's values by its name; empty ones are left out. Runs are paired if both sides have
    the same seeds, so that the seeds' effects cancel.
    """
    ranked = rank_by_mean(values, spec)
    if len(ranked) < 2:
        return []
    best, *others = ranked
    tests = [_t_test(values[best], values[other]) for other in others]
    p_values = [test.p for test in tests if test is not None and test.p is not None]
    corrected = iter(holm_correction(p_values))
    return [
        Comparison(best, other, test, None if test is None or test.p is None else next(corrected), len(p_values))
        for other, test in zip(others, tests, strict=True)
    ]


def rank_by_mean(values: Mapping[str, Values], spec: MetricSpec) -> list[str]:
    """Return the names of the configurations that have values, the best mean first."""
    means = {name: summarize(list(seeds.values())).mean for name, seeds in values.items() if seeds}
    return sorted(means, key=means.__getitem__, reverse=spec.direction == "max")


def describe_comparison(comparison: Comparison, values: Mapping[str, Values], spec: MetricSpec) -> str:
    """Return a sentence about one comparison."""
    names = (comparison.best, comparison.other)
    best, other = (summarize(list(values[name].values())) for name in names)
    figures = f"{format_mean_std(best)} vs {format_mean_std(other)}"
    pair = " vs ".join(names)
    if comparison.difference is None:
        which = "one run each" if best.n == other.n else f"{names[0] if best.n == 1 else names[1]} has one run"
        return f"{pair}: {figures}; {which}, so no test is possible; train both with seeds=5"
    if comparison.p is None:
        return f"{pair}: {figures}; no variation across seeds, so no test is possible"
    if comparison.p < SIGNIFICANCE_LEVEL:
        verdict = f"{names[0]} is better than {names[1]}"
    else:
        verdict = f"no significant difference between {names[0]} and {names[1]}"
    test = comparison.difference
    difference, interval = format_difference(test, 100 if spec.is_share else 1)
    unit = " percentage points" if spec.is_share else ""
    paired = f"paired over {test.n} seeds" if test.paired else f"{best.n} and {other.n} runs, not paired"
    corrected = f" (Holm, {comparison.comparisons} comparisons)" if comparison.comparisons > 1 else ""
    return (
        f"{verdict}: {figures}, difference {difference}{unit}, 95 % interval {interval}, "
        f"{paired}, {format_p_value(comparison.p)}{corrected}"
    )


def _t_test(first: Values, second: Values) -> TTestResult | None:
    if min(len(first), len(second)) < 2:
        return None
    if set(first) == set(second):
        return paired_t_test(list(first.values()), [second[seed] for seed in first])
    return welch_t_test(list(first.values()), list(second.values()))
