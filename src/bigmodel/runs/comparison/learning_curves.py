"""Learning curves of a sweep's runs: the best points in colours of their own, the others grey. Draws on given axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison.lettering import Lettering
from bigmodel.runs.comparison.seed_groups import SeedGroup, shown
from bigmodel.runs.comparison.verdicts import ranking
from bigmodel.runs.records import RunRecord, iter_metric_events, number

_COLOURS = 10  # that can be told apart: so many of the best points have one
_WIDE = 40  # letters of a label, up to which two stand side by side
_LONGEST = 90


def draw_curves(
    axes: Any,
    points: Sequence[SeedGroup],
    keys: Sequence[str],
    monitor: str,
    spec: MetricSpec | None,
    letters: Lettering,
) -> list[float]:
    """The metric over the epochs, which all batch sizes share: a line for each run, a dot for a single evaluation.

    Runs that did not finish are dotted and stand in the legend as one. Returns the heights of all lines.
    """
    named = {str(place): point for place, point in enumerate(points)}
    best = _best(named, spec)
    short = _short(keys)
    values = {key: letters.values(point.config.get(key) for point in points) for key in keys}
    labels: list[str] = []
    taken = set[str]()
    heights: list[float] = []
    last = 0.0
    for name in [*best, *(name for name in named if name not in best)]:
        config = named[name].config
        label = letters.plain(" ".join(f"{short[key]}={values[key][shown(config.get(key))]}" for key in keys), _LONGEST)
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
                told = "did not finish"
                style |= {"linestyle": ":", "color": "0.4", "zorder": 2}
            elif name in best:
                told = label
                style |= {"color": f"C{best.index(name)}"}
            else:
                told = f"{len(named) - len(best)} others"
                style |= {"linewidth": 0.8, "color": "0.75", "zorder": 1}
            if len(reached) == 1:
                style |= {"marker": "o", "markersize": 5}
            axes.plot(epochs, reached, label="_nolegend_" if told in labels else told, **style)
            labels += [told] if told not in labels else []
    if keys and labels:
        columns = 2 if max(map(len, labels)) <= _WIDE else 1
        axes.figure.legend(loc="outside lower center", ncols=columns, fontsize=7)
    axes.set_xlabel("epoch")
    if last >= 1:  # from 0 on, for one evaluation alone would have an axis of fractions
        axes.set_xlim(0, 1.03 * last)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return heights


def _best(named: dict[str, SeedGroup], spec: MetricSpec | None) -> list[str]:
    """The points that get colours: all of a few, of many those that reached most, the best first; the first ones where
    nobody says what is better.
    """
    values = {name: point.values("best") for name, point in named.items()}
    if len(values) <= _COLOURS or spec is None or spec.direction == "none":
        return [name for name, reached in values.items() if reached][:_COLOURS]
    return ranking(values, spec)[:_COLOURS]


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Each key by its last word, where no other key ends in it."""
    leaves = [key.rpartition(".")[2] for key in keys]
    return {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)}


def _curve(run: RunRecord, monitor: str) -> tuple[list[float], list[float]]:
    """Epochs, and the metric after each evaluation."""
    split, _, name = monitor.partition("/")
    events = [event for event in iter_metric_events(run.path) if event["split"] == split]
    pairs = [(number(event.get("epoch")), number(event.get(name))) for event in events]
    whole = [(epoch, value) for epoch, value in pairs if epoch is not None and value is not None]
    return [epoch for epoch, _ in whole], [value for _, value in whole]
