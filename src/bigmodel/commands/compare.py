"""`bigmodel-compare A B …`: is one run or sweep better than another, and what was set differently. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bigmodel import statistics
from bigmodel.errors import ConfigError
from bigmodel.options import options
from bigmodel.results import verdicts, words
from bigmodel.results.points import Point, differing, group, shown
from bigmodel.results.reading import Run, expand
from bigmodel.results.tables import table, terminal_width
from bigmodel.targets import nearest
from bigmodel.words import clip, json_line

_DEFAULTS = {"metric": "", "format": "table"}
_CHOICES = {"format": ("table", "json")}
_ABSENT = "-"
_SHOWN = 200  # letters of a value in the difference


def run(given: Sequence[str]) -> None:
    """Compare and print.

    Raises:
        ConfigError: a path is no run or sweep, or no run has the metric.
    """
    settings, paths = options(given, _DEFAULTS, _CHOICES)
    warnings: list[str] = []
    points = _points(paths, warnings)
    runs = [run for point in points.values() for run in point.runs]
    metric = settings["metric"] or _usual(runs)
    known = sorted({name for run in runs if run.finished for name in run.metrics})
    if metric not in known:
        raise ConfigError(f"metric: no finished run has '{metric}'; {nearest(metric, known)}")
    for line in [*warnings, *_left_out(points, metric)]:
        print(f"warning: {clip(line, 300)}", file=sys.stderr)
    values = {name: point.values(metric) for name, point in points.items()}
    found = verdicts.compare(values, metric)
    if settings["format"] == "json":
        print(json_line(_report(points, values, metric, found), sys.stdout.encoding))
    else:
        print("\n".join(_lines(points, values, metric, found)))


def _points(paths: Sequence[str], warnings: list[str]) -> dict[str, Point]:
    """Points by a letter. A sweep's stay its own; runs that were named one by one are put together by config."""
    if not paths:
        raise ConfigError("compare: name runs or sweeps, as bigmodel-compare outputs/DATE/TIME outputs/sweeps/TIME")
    problems: list[str] = []
    single: list[Run] = []
    groups: list[Sequence[Run]] = []
    for path in dict.fromkeys(Path(path) for path in paths):
        try:
            runs = expand(path, warnings)
        except ConfigError as error:
            problems += error.lines
            continue
        if [run.path for run in runs] != [path] or _repeats(single, runs[0]):  # repeats: other code or machine
            groups.append(runs)
        else:
            if not single:
                groups.append(single)
            single += runs
    if problems:
        raise ConfigError(*problems)
    found = [point for runs in groups for point in group(runs)]
    return {_letter(number): point for number, point in enumerate(found)}


def _repeats(runs: Sequence[Run], run: Run) -> bool:
    return any(point.repeated for point in group([*runs, run]))


def _letter(number: int) -> str:
    """A, B … Z, A2, B2 …"""
    return chr(ord("A") + number % 26) + (str(number // 26 + 1) if number >= 26 else "")


def _usual(runs: Sequence[Run]) -> str:
    """The metric that was monitored, on the test split where all runs have it."""
    monitor = runs[0].monitor
    test = f"test/{monitor.rpartition('/')[2]}"
    return test if all(test in run.metrics for run in runs if run.finished) else monitor


def _left_out(points: Mapping[str, Point], metric: str) -> list[str]:
    lines = []
    for name, point in points.items():
        for run in point.runs:
            if not run.finished:
                lines.append(f"{name}: {run.path} is {run.state} and left out")
            elif metric not in run.metrics:
                lines.append(f"{name}: {run.path} has no {metric} and is left out")
        if point.repeated:
            lines.append(f"{name}: {point.repeated} runs repeat a seed and are left out; the newest counts")
    return lines


def _lines(
    points: Mapping[str, Point],
    values: Mapping[str, verdicts.Values],
    metric: str,
    found: Sequence[verdicts.Comparison],
) -> list[str]:
    width = terminal_width()
    rows = []
    for name, point in points.items():
        of = _summary(values[name])
        row = [name, str(of.n if of else 0), words.mean(of)]
        rows.append([*row, words.interval(of.low, of.high) if of else words.MISSING, _place(point)])
    lines = table(["", "n", metric, "95 % interval", "runs"], rows, width)
    configs = {name: _facts(point) for name, point in points.items()}
    keys = differing(list(configs.values()))
    if keys:
        rows = [[key, *(_text(config, key) for config in configs.values())] for key in keys]
        lines += ["", *table(["differs", *configs], rows, width)]
    elif len(points) > 1:
        lines += ["", "the configs do not differ"]
    said = [verdicts.statement(comparison, values, metric) for comparison in found]
    return [*lines, "", *(said or ["one point has values: there is nothing to compare it with"])]


def _summary(values: verdicts.Values) -> statistics.Summary | None:
    return statistics.summary(list(values.values())) if values else None


def _place(point: Point) -> str:
    first = str(point.runs[0].path)
    return first if len(point.runs) == 1 else f"{first} and {len(point.runs) - 1} more"


def _facts(point: Point) -> dict[str, Any]:
    """The point's config, and what all its runs share of the code and the machine."""
    shared = set.intersection(*(set(run.environment.items()) for run in point.runs))
    return {**point.config, **dict(sorted(shared))}


def _text(config: Mapping[str, Any], key: str) -> str:
    return shown(config[key])[:_SHOWN] if key in config else _ABSENT


def _report(
    points: Mapping[str, Point],
    values: Mapping[str, verdicts.Values],
    metric: str,
    found: Sequence[verdicts.Comparison],
) -> dict[str, Any]:
    configs = {name: _facts(point) for name, point in points.items()}
    keys = differing(list(configs.values()))
    about = []
    for name, point in points.items():
        of = _summary(values[name])
        about.append(
            {
                "name": name,
                "runs": [str(run.path) for run in point.runs],
                "config": {key: configs[name][key] for key in keys if key in configs[name]},
                "values": {str(seed): value for seed, value in values[name].items()},
                **(asdict(of) if of else {"n": 0}),
            }
        )
    said = [asdict(one) | {"statement": verdicts.statement(one, values, metric)} for one in found]
    return {"metric": metric, "points": about, "comparisons": said}
