"""`bigmodel-runs`: list, filter and sort the runs under `outputs/`. Imports no torch."""

from __future__ import annotations

import operator
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from bigmodel.commands.arguments import parse_options
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import json_line, truncate
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

    def holds(self, fields: dict[str, Any]) -> bool:
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
    conditions = _parse_conditions([*settings["filter"].split(), *rest])
    limit = _parse_limit(settings["limit"])
    output_dir = Path(settings["output_dir"])
    if not output_dir.is_dir():
        raise ConfigError(f"output_dir: there is no directory '{output_dir}'")
    entries(output_dir)  # raises StorageError if the directory may not be read
    warnings: list[str] = []
    runs, now = find_runs(output_dir, warnings), time.time()
    for line in warnings:
        print(f"warning: {truncate(line, 300)}", file=sys.stderr)
    fields = [_fields(run, now) for run in runs]
    key = settings["sort"].removeprefix("-")
    _reject_unknown_keys([*(condition.key for condition in conditions), key], fields)
    kept = [i for i, one in enumerate(fields) if all(condition.holds(one) for condition in conditions)]
    kept = _sort(kept, runs, fields, key, settings["sort"].startswith("-"))[:limit]
    if settings["format"] == "json":
        for i in kept:
            print(json_line(_to_json(runs[i], fields[i]), sys.stdout.encoding))
    elif kept:
        print("\n".join(_table_lines([fields[i] for i in kept], [key, *(condition.key for condition in conditions)])))
    else:
        none_left = f"none of the {len(runs)} runs under {output_dir} matches the conditions"
        print(none_left if runs else f"no runs under {output_dir}")


def _parse_conditions(texts: Sequence[str]) -> list[Condition]:
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
    """Return the config, the metrics, the state, the age in seconds and the path of a run, by key."""
    own = {"state": run.state, "age": now - run.started, "path": str(run.path)}
    return {**run.config, **run.metrics, **own}


def _reject_unknown_keys(keys: Sequence[str], fields: Sequence[dict[str, Any]]) -> None:
    known = {key for one in fields for key in one}
    unknown = [key for key in dict.fromkeys(keys) if fields and key not in known]
    if unknown:
        raise ConfigError(*(f"{truncate(key)}: no run has it; {_hint(key, sorted(known))}" for key in unknown))


def _hint(key: str, known: Sequence[str]) -> str:
    same_leaf = [name for name in known if re.split(r"[./]", name)[-1] == key]
    hint = f"did you mean {same_leaf[0]}?" if same_leaf else suggest(key, known)
    return hint if hint.startswith("did") else "format=json shows the keys"


def _sort(
    kept: Sequence[int], runs: Sequence[RunRecord], fields: Sequence[dict[str, Any]], key: str, reverse: bool
) -> list[int]:
    """Return run indices with the best, newest or smallest first, and runs without the key last.

    `best` is sorted separately for each monitored metric.
    """
    present = [i for i in kept if fields[i].get(key) is not None]
    absent = [i for i in kept if fields[i].get(key) is None]
    monitors = sorted({runs[i].monitor for i in present}) if key == "best" else [""]
    if len(monitors) > 1:
        print(f"warning: sort: best is of {', '.join(monitors)}: each is sorted separately", file=sys.stderr)
    order: list[int] = []
    for monitor in monitors:
        some = [i for i in present if key != "best" or runs[i].monitor == monitor]
        is_numeric = all(_number(fields[i][key]) is not None for i in some)
        highest_first = is_numeric and _highest_first([runs[i] for i in some], key)
        value: Callable[[Any], Any] = _number if is_numeric else format_value
        ranked = sorted(((value(fields[i][key]), i) for i in some), key=itemgetter(0), reverse=reverse != highest_first)
        order += [i for _, i in ranked]
    return order + absent


def _highest_first(runs: Sequence[RunRecord], key: str) -> bool:
    """Whether high values of a metric are better; False for a setting."""
    if "/" not in key and key not in ("best", "samples_per_s"):
        return False
    try:
        spec = common_spec(runs, key)
    except ValueError as error:
        print(f"warning: sort: {error}; the lowest come first", file=sys.stderr)
        return False
    if runs and (spec is None or spec.direction == "none"):
        print(
            f"warning: sort: no run declares whether low or high {key} is better; the lowest come first",
            file=sys.stderr,
        )
    return spec is not None and spec.direction == "max"


def _table_lines(fields: Sequence[dict[str, Any]], used_keys: Sequence[str]) -> list[str]:
    """Return the table with the usual columns and those that the conditions and the order use."""
    more = [key for key in dict.fromkeys(used_keys) if key not in _COLUMNS]
    columns = [*_COLUMNS[:-2], *more, *_COLUMNS[-2:]]
    rows = [[_cell(one, key) for key in columns] for one in fields]
    return format_table(columns, rows, terminal_width(), [key for key in _OPTIONAL if key not in used_keys])


def _cell(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if key == "age":
        return format_age(fields["age"])
    if key == "step" and isinstance(value, float):
        return f"{value:.0f}/{fields['steps']:.0f}" if isinstance(fields.get("steps"), float) else f"{value:.0f}"
    if isinstance(value, float) and ("/" in key or key == "best"):
        return format_number(value)
    return NO_VALUE if value is None else format_value(value)


def _to_json(run: RunRecord, fields: dict[str, Any]) -> dict[str, Any]:
    own = {key: fields[key] for key in ("path", "state", "age")}
    return own | {"monitor": run.monitor, "metrics": dict(run.metrics), "config": dict(run.config)}


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
