"""`bigmodel-runs`: list, filter and sort the runs under `outputs/`. Imports no torch."""

from __future__ import annotations

import operator
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from bigmodel.commands.arguments import parse_options
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import format_count, json_line, truncate
from bigmodel.runs.comparison.formatting import NO_VALUE, format_age, format_number
from bigmodel.runs.comparison.measures import common_spec
from bigmodel.runs.comparison.seed_groups import format_value
from bigmodel.runs.comparison.tables import format_table, terminal_width
from bigmodel.runs.records import RunRecord, find_runs
from bigmodel.safe_files import entries

DEFAULTS = {"sort": "age", "filter": "", "format": "table", "output_dir": "outputs", "limit": "null"}
CHOICES = {"format": ("table", "json")}
_COLUMNS = ("state", "model", "dataset", "optim", "optim.lr", "test/accuracy", "best", "step", "age", "path")
_OPTIONAL = ("dataset", "step", "optim", "best", "optim.lr", "model")  # dropped in this order in a narrow terminal
_CONDITION = re.compile(r"([\w./-]+)\s*(!=|>=|<=|=|>|<)\s*(.*)", re.DOTALL)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    **{"=": operator.eq, "!=": operator.ne},
    **{">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le},
}
_AGE_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Condition:
    """A condition on a run, such as `optim.lr>0.1`."""

    key: str
    sign: str
    value: str

    def holds(self, fields: Mapping[str, Any]) -> bool:
        """Whether a run meets the condition: numbers are compared as such, other values with `=` and `!=` as text."""
        if self.key not in fields:
            return self.sign == "!="
        value = fields[self.key]
        numbers = _number(value), _number(self.value, self.key == "age")
        if None not in numbers and not isinstance(value, bool):
            return _OPERATORS[self.sign](*numbers)
        if self.sign not in ("=", "!="):
            return False
        return _OPERATORS[self.sign](_without_spaces(format_value(value)), _without_spaces(self.value))


def run(given: Sequence[str]) -> None:
    """Print the runs that meet the conditions.

    Raises:
        ConfigError: an option or a condition cannot be parsed, or no run has a key.
    """
    settings, rest = parse_options(given, DEFAULTS, CHOICES)
    conditions = parse_conditions([*settings["filter"].split(), *rest])
    limit = _parse_limit(settings["limit"])
    output_dir = Path(settings["output_dir"])
    if not output_dir.is_dir():
        raise ConfigError(f"output_dir: there is no directory '{output_dir}'")
    entries(output_dir)  # raises StorageError if the directory may not be read
    warnings: list[str] = []
    records = find_runs(output_dir, warnings)
    try:
        runs = select_runs(records, conditions, settings["sort"], limit, warnings)
    finally:
        for line in warnings:
            print(f"warning: {truncate(line, 300)}", file=sys.stderr)
    if settings["format"] == "json":
        for one in runs:
            print(json_line(_to_json(one), sys.stdout.encoding))
    elif runs:
        used = [settings["sort"].removeprefix("-"), *(condition.key for condition in conditions)]
        print("\n".join(table_lines(runs, used, terminal_width())))
    else:
        none_left = f"none of {format_count(len(records), 'run')} under {output_dir} matches the conditions"
        print(none_left if records else f"no runs under {output_dir}")


@dataclass(frozen=True)
class ListedRun:
    """A run with its config, its metrics, its state, its age in seconds and its path, by key."""

    record: RunRecord
    fields: Mapping[str, Any]


def select_runs(
    records: Sequence[RunRecord], conditions: Sequence[Condition], sort: str, limit: int | None, warnings: list[str]
) -> list[ListedRun]:
    """Return the runs that meet all conditions, at most `limit`, sorted by a key; `-key` reverses the order.

    Raises:
        ConfigError: no run has a key of a condition or of the order.
    """
    now = time.time()
    runs = [ListedRun(record, _fields(record, now)) for record in records]
    key = sort.removeprefix("-")
    _reject_unknown_keys([*(condition.key for condition in conditions), key], [one.fields for one in runs])
    kept = [one for one in runs if all(condition.holds(one.fields) for condition in conditions)]
    return _sort(kept, key, sort.startswith("-"), warnings)[:limit]


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """Parse conditions such as `optim.lr>0.1`.

    Raises:
        ConfigError: a line for each text that is no condition.
    """
    matches = [(text, _CONDITION.fullmatch(text)) for text in texts]
    invalid = [text for text, match in matches if match is None]
    if invalid:
        raise ConfigError(
            *(f"{truncate(text)}: no condition; write key=value, 'key>value' or 'key<value'" for text in invalid)
        )
    return [Condition(*match.groups()) for _, match in matches if match is not None]


def _parse_limit(text: str) -> int | None:
    if text != "null" and not (text.isdecimal() and text.isascii() and len(text) < 10):
        raise ConfigError(f"limit: must be a number or null, not '{truncate(text)}'")
    return None if text == "null" else int(text)


def _fields(run: RunRecord, now: float) -> dict[str, Any]:
    own = {"state": run.state, "age": now - run.started, "path": str(run.path)}
    return {**run.config, **run.metrics, **own}


def _reject_unknown_keys(keys: Sequence[str], fields: Sequence[Mapping[str, Any]]) -> None:
    known = {key for one in fields for key in one}
    unknown = [key for key in dict.fromkeys(keys) if fields and key not in known]
    if unknown:
        raise ConfigError(*(f"{truncate(key)}: no run has it; {_hint(key, sorted(known))}" for key in unknown))


def _hint(key: str, known: Sequence[str]) -> str:
    same_leaf = [name for name in known if re.split(r"[./]", name)[-1] == key]
    hint = f"did you mean {same_leaf[0]}?" if same_leaf else suggest(key, known)
    return hint if hint.startswith("did") else "format=json shows the keys"


def _sort(runs: Sequence[ListedRun], key: str, reverse: bool, warnings: list[str]) -> list[ListedRun]:
    """Return runs with the best, newest or smallest first, and runs without the key last.

    `best` is sorted separately for each monitored metric.
    """
    present = [one for one in runs if one.fields.get(key) is not None]
    absent = [one for one in runs if one.fields.get(key) is None]
    monitors = sorted({one.record.monitor for one in present}) if key == "best" else [""]
    if len(monitors) > 1:
        warnings.append(f"sort: these runs monitor {', '.join(monitors)}; best is sorted separately for each")
    order: list[ListedRun] = []
    for monitor in monitors:
        some = [one for one in present if key != "best" or one.record.monitor == monitor]
        is_numeric = all(_number(one.fields[key]) is not None for one in some)
        highest_first = is_numeric and _highest_first([one.record for one in some], key, warnings)
        value: Callable[[Any], Any] = _number if is_numeric else format_value
        pairs = [(value(one.fields[key]), one) for one in some]
        order += [one for _, one in sorted(pairs, key=itemgetter(0), reverse=reverse != highest_first)]
    return order + absent


def _highest_first(runs: Sequence[RunRecord], key: str, warnings: list[str]) -> bool:
    """Whether high values of a metric are better; False for a setting."""
    if "/" not in key and key not in ("best", "samples_per_s"):
        return False
    try:
        spec = common_spec(runs, key)
    except ValueError as error:
        warnings.append(f"sort: {error}; the lowest come first")
        return False
    if runs and (spec is None or spec.direction == "none"):
        warnings.append(f"sort: no run declares whether low or high {key} is better; the lowest come first")
    return spec is not None and spec.direction == "max"


def columns_with(used_keys: Sequence[str]) -> list[str]:
    """Return the usual columns of a table of runs, and those that conditions and the order use."""
    more = [key for key in dict.fromkeys(used_keys) if key not in _COLUMNS]
    return [*_COLUMNS[:-2], *more, *_COLUMNS[-2:]]


def table_lines(runs: Sequence[ListedRun], used_keys: Sequence[str] = (), width: int | None = None) -> list[str]:
    """Return runs as a table; where `width` is too small, the less important columns are left out."""
    columns = columns_with(used_keys)
    rows = [[format_cell(one.fields, key) for key in columns] for one in runs]
    return format_table(columns, rows, width, [key for key in _OPTIONAL if key not in used_keys])


def format_cell(fields: Mapping[str, Any], key: str) -> str:
    """Return a run's value of a key for a table."""
    value = fields.get(key)
    if key == "age":
        return format_age(fields["age"])
    if key == "step" and isinstance(value, float):
        return f"{value:.0f}/{fields['steps']:.0f}" if isinstance(fields.get("steps"), float) else f"{value:.0f}"
    if isinstance(value, float) and ("/" in key or key == "best"):
        return format_number(value)
    return NO_VALUE if value is None else format_value(value)


def _to_json(run: ListedRun) -> dict[str, Any]:
    own = {key: run.fields[key] for key in ("path", "state", "age")}
    record = run.record
    return own | {"monitor": record.monitor, "metrics": dict(record.metrics), "config": dict(record.config)}


def _number(value: Any, is_age: bool = False) -> float | None:
    """Return a value as a number, with `is_age` from `2d` in seconds; None if it is not a number."""
    if isinstance(value, bool) or value is None:
        return None
    text = str(value)
    has_unit = is_age and text[-1:] in _AGE_UNITS_S
    try:
        return float(text[:-1]) * _AGE_UNITS_S[text[-1:]] if has_unit else float(text)
    except ValueError:
        return None


def _without_spaces(text: str) -> str:
    return text.replace(" ", "")
