"""Outcome of a search: its best trial or, for several metrics, its Pareto front. Needs no Optuna."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bigmodel.formatting import format_count
from bigmodel.listeners.lines import format_metric
from bigmodel.metric_spec import from_summary, spec_for
from bigmodel.runs.records import iter_metric_events, number
from bigmodel.sweeps.search.plan import SearchPlan
from bigmodel.sweeps.state.directory import SweepDirectory

Values = tuple[float, ...]


def trial_values(run: Path, summary: Mapping[str, Any], plan: SearchPlan) -> Values | None:
    """Return the plan's metrics of a finished run, or None if one is missing.

    The monitored metric counts at its best, other metrics of a split at the step of that best value.
    """
    found = [_metric_value(run, summary, name, plan.monitor) for name in plan.metrics]
    values = tuple(value for value in found if value is not None)
    return values if len(values) == len(found) else None


def mean_values(sweep: SweepDirectory, plan: SearchPlan, jobs: Sequence[int]) -> Values | None:
    """Return the means over a trial's jobs of the plan's metrics, or None if a job lacks one."""
    each = [trial_values(sweep.run_path(job), sweep.summary(job), plan) for job in jobs]
    values = [one for one in each if one is not None]
    return tuple(map(fmean, zip(*values, strict=True))) if len(values) == len(each) else None


def validation_curve(run: Path, metric: str) -> list[float]:
    """Return the metric after each evaluation so far."""
    split, _, name = metric.partition("/")
    values = [number(event.get(name)) for event in iter_metric_events(run) if event["split"] == split]
    return [value for value in values if value is not None]


def pareto_front(found: dict[int, Values], directions: Sequence[str]) -> list[int]:
    """Return the trials that no other trial dominates, best first by the first metric.

    A trial dominates another that it equals in every metric and beats in one.
    """
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    costs = {trial: [s * v for s, v in zip(signs, values, strict=True)] for trial, values in found.items()}

    def dominates(one: list[float], other: list[float]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    kept = [trial for trial, cost in costs.items() if not any(dominates(other, cost) for other in costs.values())]
    return sorted(kept, key=lambda trial: costs[trial])


def best_trial_lines(sweep: SweepDirectory, plan: SearchPlan, done: Sequence[int], granted: Sequence[str]) -> list[str]:
    """Return lines about the best of the trials that are done, with a command that trains it again.

    `granted` is the `trust=` override of that command.
    """
    width = plan.jobs_per_trial
    trials = {trial: range(trial * width, (trial + 1) * width) for trial in sorted({job // width for job in done})}
    values = {trial: mean_values(sweep, plan, jobs) for trial, jobs in trials.items() if set(jobs) <= set(done)}
    measured = {trial: figures for trial, figures in values.items() if figures is not None}
    best = pareto_front(measured, plan.directions)
    many = len(plan.metrics) > 1
    lines = [f"{len(best)} trials that no other beats in {' and '.join(plan.metrics)}:"] if many else []
    for trial in best if many else best[:1]:
        job = trials[trial][0]
        specs = from_summary(sweep.summary(job))
        figures = ", ".join(
            f"{metric} {format_metric(value, spec_for(specs, metric))}"
            for metric, value in zip(plan.metrics, measured[trial], strict=True)
        )
        chosen = " ".join(sweep.jobs[job].overrides[: -1 if plan.seeds else None])
        averaged = f" (mean of {format_count(width, 'seed')})" if plan.seeds else ""
        lines.append(f"{'' if many else 'best: '}trial {trial}, {figures}{averaged}: {chosen}")
    for trial in best[:1]:  # from its own config: other YAML files may have changed since
        job = trials[trial][0]
        config = ["--config-path", str(sweep.config_path(job).parent), "--config-name", str(job)]
        command = shlex.join(["bigmodel-train", *config, *granted])
        lines.append(f"to train {'the first' if many else 'it'} again: {command}")
    return lines


def _metric_value(run: Path, summary: Mapping[str, Any], metric: str, monitor: str) -> float | None:
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
