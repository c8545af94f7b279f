"""`bigmodel-runs`: what lies under `outputs/`, filtered and sorted. Imports no torch."""

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
from bigmodel.runs.comparison import formatting as words
from bigmodel.runs.comparison.measures import common_spec
from bigmodel.runs.comparison.seed_groups import shown
from bigmodel.runs.comparison.tables import format_table, terminal_width
from bigmodel.runs.records import RunRecord, find_runs
from bigmodel.safe_files import entries

_DEFAULTS = {"sort": "age", "filter": "", "format": "table", "output_dir": "outputs", "limit": "null"}
_CHOICES = {"format": ("table", "json")}
_COLUMNS = ("state", "model", "dataset", "optim", "optim.lr", "test/accuracy", "best", "step", "age", "path")
_OPTIONAL = ("dataset", "step", "optim", "best", "optim.lr", "model")  # in this order they leave a narrow terminal
_CONDITION = re.compile(r"([\w./-]+)\s*(!=|>=|<=|=|>|<)\s*(.*)", re.DOTALL)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    **{"=": operator.eq, "!=": operator.ne},
    **{">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le},
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Condition:
    """`optim.lr>0.1`."""

    key: str
    sign: str
    value: str

    def holds(self, facts: dict[str, Any]) -> bool:
        """Whether a run has the key and its value fits: as numbers where both are, else `=` and `!=` as text."""
        if self.key not in facts:
            return self.sign == "!="
        value = facts[self.key]
        numbers = _number(value), _number(self.value, self.key == "age")
        if None not in numbers and not isinstance(value, bool):
            return _OPERATORS[self.sign](*numbers)
        if self.sign not in ("=", "!="):
            return False
        return _OPERATORS[self.sign](_plain(shown(value)), _plain(self.value))


def run(given: Sequence[str]) -> None:
    """List and print.

    Raises:
        ConfigError: an option or a condition cannot be read, or no run has a key.
    """
    settings, rest = parse_options(given, _DEFAULTS, _CHOICES)
    conditions = _conditions([*settings["filter"].split(), *rest])
    limit = _limit(settings["limit"])
    output_dir = Path(settings["output_dir"])
    if not output_dir.is_dir():
        raise ConfigError(f"output_dir: there is no directory '{output_dir}'")
    entries(output_dir)  # StorageError where it may not be read: none of the runs in it could be listed
    warnings: list[str] = []
    runs, now = find_runs(output_dir, warnings), time.time()
    for line in warnings:
        print(f"warning: {truncate(line, 300)}", file=sys.stderr)
    facts = [_facts(run, now) for run in runs]
    key = settings["sort"].removeprefix("-")
    _refuse_unknown([*(condition.key for condition in conditions), key], facts)
    kept = [i for i, fact in enumerate(facts) if all(condition.holds(fact) for condition in conditions)]
    kept = _sorted(kept, runs, facts, key, settings["sort"].startswith("-"))[:limit]
    if settings["format"] == "json":
        for i in kept:
            print(json_line(_record(runs[i], facts[i]), sys.stdout.encoding))
    elif kept:
        print("\n".join(_table([facts[i] for i in kept], [key, *(condition.key for condition in conditions)])))
    else:
        print(f"{len(runs)} runs under {output_dir}, none of which fits" if runs else f"no runs under {output_dir}")


def _conditions(texts: Sequence[str]) -> list[Condition]:
    found = [(text, _CONDITION.fullmatch(text)) for text in texts]
    wrong = [text for text, match in found if match is None]
    if wrong:
        raise ConfigError(
            *(f"{truncate(text)}: no condition; write key=value, 'key>value' or 'key<value'" for text in wrong)
        )
    return [Condition(*match.groups()) for _, match in found if match is not None]


def _limit(text: str) -> int | None:
    if text != "null" and not (text.isdecimal() and text.isascii() and len(text) < 10):
        raise ConfigError(f"limit: must be a number or null, not '{truncate(text)}'")
    return None if text == "null" else int(text)


def _facts(run: RunRecord, now: float) -> dict[str, Any]:
    """All that can be asked of a run, by key."""
    about = {"state": run.state, "age": now - run.started, "path": str(run.path)}
    return {**run.config, **run.metrics, **about}


def _refuse_unknown(keys: Sequence[str], facts: Sequence[dict[str, Any]]) -> None:
    known = {key for fact in facts for key in fact}
    unknown = [key for key in dict.fromkeys(keys) if facts and key not in known]
    if unknown:
        raise ConfigError(*(f"{truncate(key)}: no run has it; {_hint(key, sorted(known))}" for key in unknown))


def _hint(key: str, known: Sequence[str]) -> str:
    same_leaf = [name for name in known if re.split(r"[./]", name)[-1] == key]
    hint = f"did you mean {same_leaf[0]}?" if same_leaf else suggest(key, known)
    return hint if hint.startswith("did") else "format=json shows the keys"


def _sorted(
    kept: Sequence[int], runs: Sequence[RunRecord], facts: Sequence[dict[str, Any]], key: str, reverse: bool
) -> list[int]:
    """The best, the newest or the smallest first; what lacks the key comes last. `best` is sorted within each metric
    that was monitored.
    """
    present = [i for i in kept if facts[i].get(key) is not None]
    absent = [i for i in kept if facts[i].get(key) is None]
    monitors = sorted({runs[i].monitor for i in present}) if key == "best" else [""]
    if len(monitors) > 1:
        print(f"warning: sort: best is of {', '.join(monitors)}: each is sorted by itself", file=sys.stderr)
    order: list[int] = []
    for monitor in monitors:
        some = [i for i in present if key != "best" or runs[i].monitor == monitor]
        numeric = all(_number(facts[i][key]) is not None for i in some)
        highest_first = numeric and _highest_first([runs[i] for i in some], key)
        value: Callable[[Any], Any] = _number if numeric else shown
        ranked = sorted(((value(facts[i][key]), i) for i in some), key=itemgetter(0), reverse=reverse != highest_first)
        order += [i for _, i in ranked]
    return order + absent


def _highest_first(runs: Sequence[RunRecord], key: str) -> bool:
    """Whether high values of a metric are the better ones; a setting has no better ones."""
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


def _table(facts: Sequence[dict[str, Any]], asked: Sequence[str]) -> list[str]:
    more = [key for key in dict.fromkeys(asked) if key not in _COLUMNS]
    columns = [*_COLUMNS[:-2], *more, *_COLUMNS[-2:]]
    rows = [[_cell(fact, key) for key in columns] for fact in facts]
    return format_table(columns, rows, terminal_width(), [key for key in _OPTIONAL if key not in asked])


def _cell(fact: dict[str, Any], key: str) -> str:
    value = fact.get(key)
    if key == "age":
        return words.format_age(fact["age"])
    if key == "step" and isinstance(value, float):
        return f"{value:.0f}/{fact['steps']:.0f}" if isinstance(fact.get("steps"), float) else f"{value:.0f}"
    if isinstance(value, float) and ("/" in key or key == "best"):
        return words.format_number(value)
    return words.NO_VALUE if value is None else shown(value)


def _record(run: RunRecord, facts: dict[str, Any]) -> dict[str, Any]:
    about = {key: facts[key] for key in ("path", "state", "age")}
    return about | {"monitor": run.monitor, "metrics": dict(run.metrics), "config": dict(run.config)}


def _number(value: Any, time: bool = False) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    text = str(value)
    scale = _UNITS.get(text[-1:], 1) if time else 1
    try:
        return float(text[:-1] if time and text[-1:] in _UNITS else text) * scale
    except ValueError:
        return None


def _plain(text: str) -> str:
    return text.replace(" ", "")
