"""`bigmodel-compare A B …`: is one run or sweep better than another, and what was set differently. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

from bigmodel.commands.arguments import parse_options
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import json_line, truncate
from bigmodel.metric_spec import MetricSpec, on_test_split
from bigmodel.runs.comparison import formatting as words
from bigmodel.runs.comparison import significance as statistics
from bigmodel.runs.comparison import verdicts
from bigmodel.runs.comparison.measures import DATA, FINGERPRINT, common_spec, differing_facts
from bigmodel.runs.comparison.seed_groups import SeedGroup, differing_keys, group_by_config, shown
from bigmodel.runs.comparison.tables import format_table, terminal_width
from bigmodel.runs.records import RunRecord, read_run_or_sweep

_DEFAULTS = {"metric": "", "format": "table", "direction": "", "force": "false"}
_CHOICES = {"format": ("table", "json"), "direction": ("", "min", "max"), "force": ("true", "false")}
_ABSENT = "-"
_SHOWN = 200  # letters of a value in the difference


def run(given: Sequence[str]) -> None:
    """Compare and print.

    Raises:
        ConfigError: a path is no run or sweep, no run has the metric, or it does not measure the same in all of them.
    """
    settings, paths = parse_options(given, _DEFAULTS, _CHOICES)
    warnings: list[str] = []
    points = _points(paths, warnings)
    runs = [run for point in points.values() for run in point.runs]
    metric = settings["metric"] or _usual(points, warnings)
    known = sorted({name for run in runs if run.finished for name in run.metrics})
    if metric not in known:
        raise ConfigError(f"metric: no finished run has '{metric}'; {suggest(metric, known)}")
    spec = _spec(runs, metric, settings["direction"])
    for line in [*warnings, *_left_out(points, metric)]:
        print(f"warning: {truncate(line, 300)}", file=sys.stderr)
    values = {name: point.values(metric) for name, point in points.items()}
    differs = differing_facts([point for name, point in points.items() if values[name]], metric)
    refused = bool(differs) and settings["force"] != "true"
    found = [] if refused else verdicts.compare_to_best(values, spec)
    if settings["format"] == "json":
        print(json_line(_report(points, values, metric, spec, found, differs), sys.stdout.encoding))
    else:
        print("\n".join(_lines(points, values, metric, spec, found, differs)))
    if refused:
        sys.stdout.flush()
        raise ConfigError(
            f"compare: {metric} is not one measure for these runs, which differ in {', '.join(differs)}: no winner is "
            f"named; compare runs that agree in these, or add force=true"
        )


def _points(paths: Sequence[str], warnings: list[str]) -> dict[str, SeedGroup]:
    """Points by a letter. A sweep's stay its own; runs that were named one by one are put together by config."""
    if not paths:
        raise ConfigError("compare: name runs or sweeps, as bigmodel-compare outputs/DATE/TIME outputs/sweeps/TIME")
    problems: list[str] = []
    single: list[RunRecord] = []
    groups: list[Sequence[RunRecord]] = []
    for path in dict.fromkeys(Path(path) for path in paths):
        try:
            runs = read_run_or_sweep(path, warnings)
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
    found = [point for runs in groups for point in group_by_config(runs)]
    return {_letter(number): point for number, point in enumerate(found)}


def _repeats(runs: Sequence[RunRecord], run: RunRecord) -> bool:
    return any(point.repeated for point in group_by_config([*runs, run]))


def _letter(number: int) -> str:
    """A, B … Z, A2, B2 …"""
    return chr(ord("A") + number % 26) + (str(number // 26 + 1) if number >= 26 else "")


def _usual(points: Mapping[str, SeedGroup], warnings: list[str]) -> str:
    """The metric that was monitored: on the test split where all runs have it, as validated where none has.

    Raises:
        ConfigError: the runs do not agree in it, so that it must be named.
    """
    finished = {name: [run for run in point.runs if run.finished] for name, point in points.items()}
    monitors = {run.monitor: name for name, runs in finished.items() for run in reversed(runs)}
    if len(monitors) > 1:
        told = ", ".join(f"{monitor} in {name}" for monitor, name in sorted(monitors.items()))
        raise ConfigError(f"metric: the runs were monitored by different ones ({told}); name one: metric=...")
    monitor = next(iter(monitors), "")
    test = on_test_split(monitor)
    lacking = [str(run.path) for runs in finished.values() for run in runs if test not in run.metrics]
    if not lacking:
        return test
    if len(lacking) < sum(map(len, finished.values())):
        raise ConfigError(f"metric: {', '.join(lacking[:3])} has no {test}, others have; name one: metric={monitor}")
    if monitor:
        warnings.append(f"no run has {test}: compared by {monitor}, as it was after the last evaluation")
    return monitor


def _spec(runs: Sequence[RunRecord], metric: str, direction: str) -> MetricSpec:
    """What the runs declare of the metric, or what is asked for.

    Raises:
        ConfigError: it is not known whether low or high values are better.
    """
    try:
        spec = common_spec(runs, metric)
    except ValueError as error:
        raise ConfigError(f"metric: {error}; they are no comparison") from error
    if direction in ("min", "max"):
        return replace(spec or MetricSpec("none"), direction=cast(Literal["min", "max"], direction))
    if spec is None or spec.direction == "none":
        told = "no run declares" if spec is None else "it is not said"
        raise ConfigError(f"metric: {told} whether low or high {metric} is better; add direction=min or direction=max")
    return spec


def _left_out(points: Mapping[str, SeedGroup], metric: str) -> list[str]:
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
    points: Mapping[str, SeedGroup],
    values: Mapping[str, verdicts.Values],
    metric: str,
    spec: MetricSpec,
    found: Sequence[verdicts.Comparison],
    differs: Mapping[str, Sequence[str]],
) -> list[str]:
    width = terminal_width()
    lines, rows = [], list[list[str]]()
    if differs:
        compared = [name for name in points if values[name]]
        facts = [[key, *(value[:_SHOWN] for value in column)] for key, column in differs.items()]
        lines += [*format_table(["not the same", *compared], facts, width), ""]
    for name, point in points.items():
        of = _summary(values[name])
        row = [name, str(of.n if of else 0), words.format_mean_std(of)]
        rows.append([*row, words.format_interval(of.low, of.high) if of else words.NO_VALUE, _place(point)])
    lines += format_table(["", "n", metric, "95 % interval", "runs"], rows, width)
    configs = {name: _facts(point) for name, point in points.items()}
    told = {*differs, *([DATA] if FINGERPRINT in differs else [])}
    keys = [key for key in differing_keys(list(configs.values())) if key not in told]
    if keys:
        rows = [[key, *(_text(config, key) for config in configs.values())] for key in keys]
        lines += ["", *format_table(["differs", *configs], rows, width)]
    elif len(points) > 1 and not differs:
        lines += ["", "the configs do not differ"]
    said = [verdicts.describe_comparison(comparison, values, spec) for comparison in found]
    if found and differs:
        said.append(f"forced: {metric} is not one measure for these runs")
    if not found and not differs:
        said = ["one point has values: there is nothing to compare it with"]
    return [*lines, "", *said] if said else lines


def _summary(values: verdicts.Values) -> statistics.Summary | None:
    return statistics.summary(list(values.values())) if values else None


def _place(point: SeedGroup) -> str:
    first = str(point.runs[0].path)
    return first if len(point.runs) == 1 else f"{first} and {len(point.runs) - 1} more"


def _facts(point: SeedGroup) -> dict[str, Any]:
    """The point's config, and what all its runs share of the code and the machine."""
    shared = set.intersection(*(set(run.environment.items()) for run in point.runs))
    return {**point.config, **dict(sorted(shared))}


def _text(config: Mapping[str, Any], key: str) -> str:
    return shown(config[key])[:_SHOWN] if key in config else _ABSENT


def _report(
    points: Mapping[str, SeedGroup],
    values: Mapping[str, verdicts.Values],
    metric: str,
    spec: MetricSpec,
    found: Sequence[verdicts.Comparison],
    differs: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    configs = {name: _facts(point) for name, point in points.items()}
    keys = differing_keys(list(configs.values()))
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
    said = [asdict(one) | {"statement": verdicts.describe_comparison(one, values, spec)} for one in found]
    compared = [name for name in points if values[name]]
    apart = {key: dict(zip(compared, column, strict=True)) for key, column in differs.items()}
    told = {"metric": metric, "direction": spec.direction, "unit": spec.unit, "not_the_same": apart}
    return told | {"points": about, "comparisons": said}
