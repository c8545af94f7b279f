"""`bigmodel-compare A B ...`: test whether runs or sweeps differ, and list different settings. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from bigmodel.commands.arguments import parse_options
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import format_count, json_line, truncate
from bigmodel.metric_spec import MetricSpec, on_test_split
from bigmodel.runs.comparison import verdicts
from bigmodel.runs.comparison.formatting import NO_VALUE, format_interval, format_mean_std
from bigmodel.runs.comparison.measures import DATA, FINGERPRINT, common_spec, reasons_not_comparable
from bigmodel.runs.comparison.seed_groups import SeedGroup, differing_keys, format_value, group_by_config
from bigmodel.runs.comparison.significance import Summary, summarize
from bigmodel.runs.comparison.tables import format_table, terminal_width
from bigmodel.runs.records import RunRecord, read_run_or_sweep

DEFAULTS = {"metric": "", "format": "table", "direction": "", "force": "false"}
CHOICES = {"format": ("table", "json"), "direction": ("", "min", "max"), "force": ("true", "false")}
_MAX_LETTERS = 200  # of a value in the table of differences


def run(given: Sequence[str]) -> None:
    """Compare the given runs and sweeps, and print the result.

    Raises:
        ConfigError: a path is no run or sweep, no run has the metric, or its values are not comparable.
    """
    settings, paths = parse_options(given, DEFAULTS, CHOICES)
    warnings: list[str] = []
    groups = _read_groups(paths, warnings)
    runs = [run for group in groups.values() for run in group.runs]
    metric = settings["metric"] or _default_metric(groups, warnings)
    known = sorted({name for run in runs if run.finished for name in run.metrics})
    if metric not in known:
        raise ConfigError(f"metric: no finished run has '{metric}'; {suggest(metric, known)}")
    spec = _metric_spec(runs, metric, settings["direction"])
    for line in [*warnings, *_describe_left_out(groups, metric)]:
        print(f"warning: {truncate(line, 300)}", file=sys.stderr)
    values = {name: group.values(metric) for name, group in groups.items()}
    differs = reasons_not_comparable([group for name, group in groups.items() if values[name]], metric)
    refused = bool(differs) and settings["force"] != "true"
    found = [] if refused else verdicts.compare_to_best(values, spec)
    result = _Result(groups, values, metric, spec, found, differs)
    if settings["format"] == "json":
        print(json_line(result.to_json(), sys.stdout.encoding))
    else:
        print("\n".join(result.lines()))
    if refused:
        sys.stdout.flush()
        raise ConfigError(
            f"compare: {metric} is not comparable: the runs differ in {', '.join(differs)}; no winner "
            f"is named: compare runs that agree in these, or add force=true"
        )


@dataclass(frozen=True)
class _Result:
    """Result of a comparison: the seed groups and their values by letter, and what was found.

    `differs` are reasons why the metric is not comparable, with the values of each group that has any.
    """

    groups: Mapping[str, SeedGroup]
    values: Mapping[str, verdicts.Values]
    metric: str
    spec: MetricSpec
    comparisons: Sequence[verdicts.Comparison]
    differs: Mapping[str, Sequence[str]]

    def lines(self) -> list[str]:
        """Return the result as tables and sentences."""
        width = terminal_width()
        lines, rows = [], list[list[str]]()
        if self.differs:
            reasons = [[key, *(value[:_MAX_LETTERS] for value in column)] for key, column in self.differs.items()]
            lines += [*format_table(["not the same", *self._names_with_values()], reasons, width), ""]
        for name, group in self.groups.items():
            summary = _summary(self.values[name])
            row = [name, str(summary.n if summary else 0), format_mean_std(summary)]
            interval = format_interval(summary.low, summary.high) if summary else NO_VALUE
            rows.append([*row, interval, _paths(group)])
        lines += format_table(["", "n", self.metric, "95 % interval", "runs"], rows, width)
        configs = {name: _settings(group) for name, group in self.groups.items()}
        shown_above = {*self.differs, *([DATA] if FINGERPRINT in self.differs else [])}
        keys = [key for key in differing_keys(list(configs.values())) if key not in shown_above]
        if keys:
            rows = [[key, *(_cell(config, key) for config in configs.values())] for key in keys]
            lines += ["", *format_table(["differs", *configs], rows, width)]
        elif len(self.groups) > 1 and not self.differs:
            lines += ["", "the configs do not differ"]
        sentences = [verdicts.describe_comparison(one, self.values, self.spec) for one in self.comparisons]
        if self.comparisons and self.differs:
            sentences.append(f"forced: {self.metric} is not comparable across these runs")
        if not self.comparisons and not self.differs:
            sentences = ["only one configuration has values: there is nothing to compare it with"]
        return [*lines, "", *sentences] if sentences else lines

    def to_json(self) -> dict[str, Any]:
        """Return the result for `format=json`."""
        configs = {name: _settings(group) for name, group in self.groups.items()}
        keys = differing_keys(list(configs.values()))
        points = []
        for name, group in self.groups.items():
            summary = _summary(self.values[name])
            points.append(
                {
                    "name": name,
                    "runs": [str(run.path) for run in group.runs],
                    "config": {key: configs[name][key] for key in keys if key in configs[name]},
                    "values": {str(seed): value for seed, value in self.values[name].items()},
                    **(asdict(summary) if summary else {"n": 0}),
                }
            )
        comparisons = [
            asdict(one) | {"statement": verdicts.describe_comparison(one, self.values, self.spec)}
            for one in self.comparisons
        ]
        compared = self._names_with_values()
        return {
            "metric": self.metric,
            "direction": self.spec.direction,
            "unit": self.spec.unit,
            "not_the_same": {key: dict(zip(compared, column, strict=True)) for key, column in self.differs.items()},
            "points": points,
            "comparisons": comparisons,
        }

    def _names_with_values(self) -> list[str]:
        return [name for name in self.groups if self.values[name]]


def _read_groups(paths: Sequence[str], warnings: list[str]) -> dict[str, SeedGroup]:
    """Read the seed groups of all paths, each under a letter.

    Groups of a sweep stay separate; runs that were named one by one are grouped by config.

    Raises:
        ConfigError: no path is given, or a path is no run or sweep.
    """
    if not paths:
        raise ConfigError("compare: name runs or sweeps, as bigmodel-compare outputs/DATE/TIME outputs/sweeps/TIME")
    problems: list[str] = []
    single: list[RunRecord] = []
    collections: list[Sequence[RunRecord]] = []
    for path in dict.fromkeys(Path(path) for path in paths):
        try:
            runs = read_run_or_sweep(path, warnings)
        except ConfigError as error:
            problems += error.lines
            continue
        is_sweep = [run.path for run in runs] != [path]
        unknown = [run.path for run in runs if not run.config]
        warnings += [f"{run}: left out: its config cannot be read, so nothing tells what it is" for run in unknown]
        runs = [run for run in runs if run.config]
        if not runs:
            continue
        if is_sweep or _is_repeated(single, runs[0]):  # a repeated run has other code, or is of another machine
            collections.append(runs)
        else:
            if not single:
                collections.append(single)
            single += runs
    if problems:
        raise ConfigError(*problems)
    found = [group for runs in collections for group in group_by_config(runs)]
    if not found:
        raise ConfigError(*warnings, "compare: none of these runs has a config that can be read")
    return {_letter(index): group for index, group in enumerate(found)}


def _is_repeated(runs: Sequence[RunRecord], run: RunRecord) -> bool:
    return any(group.repeated for group in group_by_config([*runs, run]))


def _letter(index: int) -> str:
    """Return A, B ... Z, A2, B2 ..."""
    return chr(ord("A") + index % 26) + (str(index // 26 + 1) if index >= 26 else "")


def _default_metric(groups: Mapping[str, SeedGroup], warnings: list[str]) -> str:
    """Return the monitored metric: on the test split if all runs have it there, on the validation split if none has.

    Raises:
        ConfigError: the runs disagree, so the metric must be named.
    """
    finished = {name: [run for run in group.runs if run.finished] for name, group in groups.items()}
    monitors = {run.monitor: name for name, runs in finished.items() for run in reversed(runs)}
    if len(monitors) > 1:
        listed = ", ".join(f"{monitor} in {name}" for monitor, name in sorted(monitors.items()))
        raise ConfigError(f"metric: the runs were monitored by different ones ({listed}); name one: metric=...")
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


def _metric_spec(runs: Sequence[RunRecord], metric: str, direction: str) -> MetricSpec:
    """Return the runs' declaration of the metric, with the given direction if there is one.

    Raises:
        ConfigError: neither says whether low or high values are better.
    """
    try:
        spec = common_spec(runs, metric)
    except ValueError as error:
        raise ConfigError(f"metric: {error}; such runs cannot be compared") from error
    if direction in ("min", "max"):
        return replace(spec or MetricSpec("none"), direction=cast(Literal["min", "max"], direction))
    if spec is None or spec.direction == "none":
        raise ConfigError(
            f"metric: no run declares whether low or high {metric} is better; add direction=min or direction=max"
        )
    return spec


def _describe_left_out(groups: Mapping[str, SeedGroup], metric: str) -> list[str]:
    """Return a line for each run that does not count, and why."""
    lines = []
    for name, group in groups.items():
        for run in group.runs:
            if not run.finished:
                lines.append(f"{name}: {run.path} is {run.state} and left out")
            elif metric not in run.metrics:
                lines.append(f"{name}: {run.path} has no {metric} and is left out")
        if group.repeated:
            lines.append(
                f"{name}: {format_count(group.repeated, 'run')} left out for a repeated seed; the newest counts"
            )
    return lines


def _summary(values: verdicts.Values) -> Summary | None:
    return summarize(list(values.values())) if values else None


def _paths(group: SeedGroup) -> str:
    first = str(group.runs[0].path)
    return first if len(group.runs) == 1 else f"{first} and {len(group.runs) - 1} more"


def _settings(group: SeedGroup) -> dict[str, Any]:
    """Return the group's config, and what all its runs have in common of code and machine."""
    common = set.intersection(*(set(run.environment.items()) for run in group.runs))
    return {**group.config, **dict(sorted(common))}


def _cell(config: Mapping[str, Any], key: str) -> str:
    return format_value(config[key])[:_MAX_LETTERS] if key in config else NO_VALUE
