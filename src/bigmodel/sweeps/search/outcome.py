"""What a search found: the best trial or, for several metrics, those that no other beats. Needs no Optuna."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bigmodel.listeners.lines import format_metric
from bigmodel.metric_spec import from_summary, spec_for
from bigmodel.runs.records import iter_metric_events, number
from bigmodel.sweeps.search.plan import SearchPlan
from bigmodel.sweeps.state.directory import SweepDirectory

Values = tuple[float, ...]


def trial_values(run: Path, summary: Mapping[str, Any], plan: SearchPlan) -> Values | None:
    """What a finished run has of each metric; None if it lacks one.

    The monitored metric counts at its best, and others of a split as they were for those weights, which are kept.
    """
    found = [_one(run, summary, name, plan.monitor) for name in plan.metrics]
    values = tuple(value for value in found if value is not None)
    return values if len(values) == len(found) else None


def mean_values(sweep: SweepDirectory, plan: SearchPlan, jobs: Sequence[int]) -> Values | None:
    """The mean over a trial's jobs of what each has reached; None if one lacks a metric."""
    each = [trial_values(sweep.run_path(job), sweep.summary(job), plan) for job in jobs]
    values = [one for one in each if one is not None]
    return tuple(map(fmean, zip(*values, strict=True))) if len(values) == len(each) else None


def evaluations(run: Path, metric: str) -> list[float]:
    """The metric after each evaluation so far."""
    split, _, name = metric.partition("/")
    values = [number(event.get(name)) for event in iter_metric_events(run) if event["split"] == split]
    return [value for value in values if value is not None]


def pareto_front(found: dict[int, Values], directions: Sequence[str]) -> list[int]:
    """The trials that no other beats: none is as good in every metric and better in one. Of one metric, the best."""
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    costs = {trial: [s * v for s, v in zip(signs, values, strict=True)] for trial, values in found.items()}

    def beats(one: list[float], other: list[float]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    kept = [trial for trial, cost in costs.items() if not any(beats(other, cost) for other in costs.values())]
    return sorted(kept, key=lambda trial: costs[trial])


def best_trial_lines(sweep: SweepDirectory, plan: SearchPlan, done: Sequence[int], granted: Sequence[str]) -> list[str]:
    """Lines on the best of the trials that are done, and how to train it again."""
    width = plan.width
    trials = {trial: range(trial * width, (trial + 1) * width) for trial in sorted({job // width for job in done})}
    values = {trial: mean_values(sweep, plan, jobs) for trial, jobs in trials.items() if set(jobs) <= set(done)}
    measured = {trial: figures for trial, figures in values.items() if figures is not None}
    best, many = pareto_front(measured, plan.directions), len(plan.metrics) > 1
    lines = [f"{len(best)} trials that no other beats in {' and '.join(plan.metrics)}:"] if many else []
    for trial in best if many else best[:1]:
        job = trials[trial][0]
        specs = from_summary(sweep.summary(job))
        figures = ", ".join(
            f"{metric} {format_metric(value, spec_for(specs, metric))}"
            for metric, value in zip(plan.metrics, measured[trial], strict=True)
        )
        chosen = " ".join(sweep.entries[job].overrides[: -1 if plan.seeds else None])
        averaged = f" (mean of {width} seeds)" if plan.seeds else ""
        lines.append(f"{'' if many else 'best: '}trial {trial}, {figures}{averaged}: {chosen}")
    for trial in best[:1]:  # its own config, as no YAML that has changed since could give it
        job = trials[trial][0]
        words = ["--config-path", str(sweep.config_path(job).parent), "--config-name", str(job), *granted]
        lines.append(f"to train {'the first' if many else 'it'} again: {shlex.join(['bigmodel-train', *words])}")
    return lines


def _one(run: Path, summary: Mapping[str, Any], metric: str, monitor: str) -> float | None:
    split, sign, name = metric.partition("/")
    if not sign:
        return number(summary.get(metric))
    with contextlib.suppress(TypeError, LookupError):
        if metric == monitor:
            return number(summary["best"]["value"])
        step = summary["best"]["step"]
        events = [event for event in iter_metric_events(run) if event["split"] == split and event["step"] <= step]
        return number(events[-1][name])
    return None
