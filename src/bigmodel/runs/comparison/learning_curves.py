"""Draw the learning curves of a sweep's runs: the best configurations in colors, the others gray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bigmodel.formatting import format_count
from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison.lettering import Lettering
from bigmodel.runs.comparison.seed_groups import SeedGroup, format_value
from bigmodel.runs.comparison.verdicts import rank_by_mean
from bigmodel.runs.records import RunRecord, iter_metric_events, number

_NUM_COLORS = 10  # that can be distinguished
_TWO_COLUMNS = 40  # letters of the longest label up to which the legend has two columns
_MAX_LABEL = 90  # letters


def draw_curves(
    axes: Any,
    groups: Sequence[SeedGroup],
    keys: Sequence[str],
    monitor: str,
    spec: MetricSpec | None,
    letters: Lettering,
) -> list[float]:
    """Draw the metric over epochs, which runs of all batch sizes share, on the given axes. Returns all drawn values.

    Each run is a line, or a dot if it was evaluated once. Runs that did not finish are dotted, with one legend entry.
    """
    named = {str(index): group for index, group in enumerate(groups)}
    best = _names_with_colors(named, spec)
    short = _short_names(keys)
    values = {key: letters.values(group.config.get(key) for group in groups) for key in keys}
    labels: list[str] = []
    taken = set[str]()
    heights: list[float] = []
    last = 0.0
    for name in [*best, *(name for name in named if name not in best)]:
        config = named[name].config
        settings = (f"{short[key]}={values[key][format_value(config.get(key))]}" for key in keys)
        label = letters.plain(" ".join(settings), _MAX_LABEL)
        if label in taken:
            label += f" (job {named[name].runs[0].path.name})"
        taken.add(label)
        for run in named[name].runs:
            epochs, reached = _curve(run, monitor)
            if not reached:
                continue
            heights += reached
            last = max(last, *epochs)
            style: dict[str, Any] = {"linewidth": 1.2, "alpha": 0.8, "zorder": 3}
            if not run.finished:
                legend = "did not finish"
                style |= {"linestyle": ":", "color": "0.4", "zorder": 2}
            elif name in best:
                legend = label
                style |= {"color": f"C{best.index(name)}"}
            else:
                legend = format_count(len(named) - len(best), "other")
                style |= {"linewidth": 0.8, "color": "0.75", "zorder": 1}
            if len(reached) == 1:
                style |= {"marker": "o", "markersize": 5}
            axes.plot(epochs, reached, label="_nolegend_" if legend in labels else legend, **style)
            labels += [legend] if legend not in labels else []
    if keys and labels:
        columns = 2 if max(map(len, labels)) <= _TWO_COLUMNS else 1
        axes.figure.legend(loc="outside lower center", ncols=columns, fontsize=7)
    axes.set_xlabel("epoch")
    if last >= 1:  # from 0, because a single evaluation would get an axis of fractions
        axes.set_xlim(0, 1.03 * last)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return heights


def _names_with_colors(named: dict[str, SeedGroup], spec: MetricSpec | None) -> list[str]:
    """Return the configurations that get colors: the best ones, or the first ones if no direction is declared."""
    values = {name: group.values("best") for name, group in named.items()}
    if len(values) <= _NUM_COLORS or spec is None or spec.direction == "none":
        return [name for name, reached in values.items() if reached][:_NUM_COLORS]
    return rank_by_mean(values, spec)[:_NUM_COLORS]


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return each key's last part, or the whole key if another key has the same last part."""
    leaves = [key.rpartition(".")[2] for key in keys]
    return {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)}


def _curve(run: RunRecord, monitor: str) -> tuple[list[float], list[float]]:
    """Return the epochs and values of the metric after each evaluation."""
    split, _, name = monitor.partition("/")
    events = [event for event in iter_metric_events(run.path) if event["split"] == split]
    pairs = [(number(event.get("epoch")), number(event.get(name))) for event in events]
    complete = [(epoch, value) for epoch, value in pairs if epoch is not None and value is not None]
    return [epoch for epoch, _ in complete], [value for _, value in complete]
