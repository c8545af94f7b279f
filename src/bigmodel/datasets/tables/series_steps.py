"""Read the time steps of series from a file: values, order of times, missing values and gaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bigmodel.datasets.files.table_files import SHOWN, Row, Table, raise_row_errors
from bigmodel.datasets.files.timestamps import looks_like_dates, parse_timestamps, suggest_formats
from bigmodel.datasets.tables.table_checks import likely_sentinels, rows_without_problem
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import format_count

Missing = Literal["refuse", "linear", "forward", "skip"]
Gaps = Literal["cross", "skip", "fill"]
_LATE = 1.5  # usual steps between two rows: more is a gap; months have 28 to 31 days
_MOST_FILLED = 1 << 24  # steps
_CLOCK_S = 3600.0  # that clocks are set back by in autumn
_FEW = 8  # steps, which may be even by chance


@dataclass(frozen=True)
class StepRules:
    """Rules for a series: which values count as missing, besides empty ones, and how to treat them and gaps in time.

    `time_format` None is ISO. `sentinels` are numbers that stand for no value.
    """

    time_format: str | None = None
    sentinels: Sequence[float] = ()
    fill: Missing = "refuse"
    gaps: Gaps = "cross"


@dataclass
class TimeSteps:
    """`values_TC` float64, NaN where missing and not filled; `breaks_T` whether time was passed over before a step."""

    values_TC: NDArray[np.float64]
    breaks_T: NDArray[np.bool_]
    notes: list[str]

    def usable_starts(self, length: int) -> NDArray[np.bool_]:
        """Return for each step whether the `length` steps from it on have all values and no gap."""
        bad_T = np.asarray(np.isnan(self.values_TC).any(axis=1), dtype=np.bool_).reshape(-1)
        missing = np.concatenate([[0], np.cumsum(bad_T)])
        broken = np.concatenate([[0], np.cumsum(self.breaks_T)])
        first = np.arange(max(0, len(bad_T) - length + 1))
        return np.asarray(
            (missing[first + length] == missing[first])
            & (broken[first + length] == broken[np.minimum(first + 1, len(bad_T))])
        )


def read_steps(table: Table, columns: Sequence[str], time: Sequence[str], rules: StepRules, log: bool) -> TimeSteps:
    """Read the values of these columns, step by step.

    Raises:
        ConfigError: gaps are to be filled, and missing values are not.
        DataError: values are missing or no numbers, or have no logarithm, or rows are not in order; places are named.
    """
    found: dict[int, tuple[str, str]] = {}
    every_TC = _values(table, columns, rules, log, found)
    every_T = _times(table, time, rules.time_format, found)
    rows, skipped = rows_without_problem(table, found)
    kept = [row.index for row in rows]
    values_TC = every_TC[kept]
    notes = [*table.notes, *skipped]
    for place, name in enumerate(columns):
        notes += likely_sentinels(name, values_TC[:, place], "sentinels=[...]")
        notes += _no_series(name, values_TC[:, place], named=bool(time))
    breaks_T = np.zeros(len(rows), dtype=np.bool_)
    if time:
        _refuse_disorder(rows, every_T[kept], time)
        values_TC, breaks_T, lines = _apply_gaps(values_TC, every_T[kept], rows, rules)
        notes += lines
    elif rules.gaps == "skip" and (left_out := np.diff(kept, prepend=kept[:1]) > 1).any():
        breaks_T = left_out
        notes.append("no window runs over rows that were left out (dataset.gaps=skip)")
    notes += _missing_note(values_TC, rules.fill)
    return TimeSteps(_fill(values_TC, rules.fill, log), breaks_T, notes)


def _apply_gaps(
    values_TC: NDArray[np.float64], times_T: NDArray[np.float64], rows: Sequence[Row], rules: StepRules
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[str]]:
    """Return the values, with empty steps in gaps that are to be filled; the breaks; and a note of the gaps."""
    breaks_T = np.zeros(len(rows), dtype=np.bool_)
    passed = _passed_over(times_T)
    count = int((passed > 0).sum())
    if not count:
        return values_TC, breaks_T, []
    first = rows[int(np.flatnonzero(passed > 0)[0])].location
    gaps, steps = format_count(count, "gap"), format_count(int(passed.sum()), "step")
    what = f"{gaps} in time, {steps} long in all, the first before {first}"
    if rules.gaps == "cross":
        return values_TC, breaks_T, [f"warning: {what}; windows run over them (dataset.gaps=skip or fill)"]
    if rules.gaps == "skip":
        return values_TC, passed > 0, [f"{what}; no window runs over one (dataset.gaps=skip)"]
    values_TC, breaks_T = _with_steps(values_TC, passed, rules.fill)
    return values_TC, breaks_T, [f"{what}; the steps are filled in (dataset.gaps=fill)"]


def _missing_note(values_TC: NDArray[np.float64], fill: Missing) -> list[str]:
    absent = int(np.isnan(values_TC).sum())
    if not absent:
        return []
    how = {"linear": "filled along a line between their neighbours", "forward": "filled with the value before"}
    early = int((np.cumsum(~np.isnan(values_TC), axis=0) == 0).sum()) if fill in how else 0
    more = f"; {early:,} before the first value of a series, with that" if early else ""
    return [
        f"{format_count(absent, 'value')} missing: {how.get(fill, 'no window holds one')} (dataset.fill={fill}){more}"
    ]


def _no_series(name: str, values: NDArray[np.float64], named: bool) -> list[str]:
    """Warn of a column that is always the same, or, if the time is not `named`, grows evenly as time does."""
    steps = np.diff(values)
    if len(steps) < _FEW or not (steps == steps[0]).all():
        return []
    if steps[0] == 0:
        return [f"warning: column '{name}' is always {values[0]:g}"]
    if named and not name.lower().startswith("unnamed"):
        return []
    what = f"warning: column '{name}' grows by {steps[0]:g} at every step, as a row number or a time does"
    return [f"{what}; if it is one, leave it out of dataset.columns or name it as dataset.time"]


def _values(
    table: Table,
    columns: Sequence[str],
    rules: StepRules,
    log: bool,
    found: dict[int, tuple[str, str]],
) -> NDArray[np.float64]:
    """Read the values of all rows; add to `found` what is wrong with a row."""
    found |= {row: ("", what) for row, what in table.width_problems(columns).items()}

    def add(row: int, column: str, what: str) -> None:
        found.setdefault(row, (column, str(table.error_at(row, column, what))))

    parts = []
    for name in columns:
        values, wrong = table.numbers(name)
        values = np.where(np.isin(values, list(rules.sentinels)), math.nan, values)
        first = table.texts(name)[:1] if wrong else []
        dates = looks_like_dates(first) or bool(suggest_formats(first))
        for row, what in wrong.items():
            add(row, name, f"{what}{'; a column of dates is named as dataset.time' if dates else ''}")
        if rules.fill == "refuse":
            for row in np.flatnonzero(np.isnan(values)).tolist():
                if row not in wrong:
                    add(
                        row,
                        name,
                        "missing; a series needs a value at every step, or dataset.fill=linear, forward or skip",
                    )
        if log:
            for row in np.flatnonzero(values <= 0).tolist():
                add(row, name, f"{values[row]:g} has no logarithm")
        parts.append(values)
    return np.stack(parts, axis=1) if parts else np.zeros((len(table), 0))


def _times(
    table: Table, time: Sequence[str], time_format: str | None, found: dict[int, tuple[str, str]]
) -> NDArray[np.float64]:
    if not time:
        return np.arange(len(table), dtype=np.float64)
    named = " ".join(time)
    parts = [table.texts(column) for column in time]
    texts = [" ".join(filter(None, cells)) for cells in zip(*parts, strict=True)]
    values, problems = parse_timestamps(texts, time_format)
    for row, what in (problems | {row: "missing" for row, text in enumerate(texts) if not text}).items():
        found.setdefault(row, (named, f"{table.location(row)}: column '{named}': {what}"))
    return values


def _refuse_disorder(rows: Sequence[Row], times_T: NDArray[np.float64], time: Sequence[str]) -> None:
    named = " ".join(time)

    def written(row: int) -> str:
        return " ".join(rows[row].text(column) for column in time)

    between = np.diff(times_T)
    late = (np.flatnonzero(between <= 0) + 1).tolist()
    hint = "; all rows are in the opposite order: sort them" if len(late) == len(rows) - 1 > 1 else ""
    problems = [
        f"{rows[n].location}: column '{named}': '{written(n)}' does not come after '{written(n - 1)}'{hint}"
        for n in late
    ]
    if problems and not hint:
        problems[min(len(problems), SHOWN) - 1] += _way_out(between[between <= 0])
    raise_row_errors(problems, rows[0].table.file if rows else "")


def _way_out(back: NDArray[np.float64]) -> str:
    """Return the advice for rows that come before the row above them, by `back` seconds or numbers."""
    if (back == 0).all():
        what = "times repeat: keep one row of each"
    elif (back >= -_CLOCK_S).all():
        what = "times are set back by an hour or less: remove the rows that repeat"
    else:
        return "; sort the rows by time, the earliest first"
    return f"; {what}, or, where clocks were set back, write times in UTC or with an offset, as 2024-10-27T02:00+01:00"


def _passed_over(times_T: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count before each step how many steps of the usual length are missing."""
    between = np.diff(times_T, prepend=times_T[:1])
    usual = float(np.median(between[1:])) if len(between) > 1 else 0.0
    if usual <= 0:
        return np.zeros(len(times_T), dtype=np.int64)
    steps = between / usual
    return np.where(steps > _LATE, np.maximum(1, np.round(steps) - 1), 0).astype(np.int64)


def _with_steps(
    values_TC: NDArray[np.float64], passed: NDArray[np.int64], missing: Missing
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    if missing not in ("linear", "forward"):
        raise ConfigError("dataset.gaps: fill needs a rule for the values: set dataset.fill=linear or forward, too")
    total = len(values_TC) + int(passed.sum())
    if total > _MOST_FILLED:
        raise DataError(
            f"dataset.gaps: filled, the series would have {total:,} steps; at most {_MOST_FILLED:,} are made"
        )
    places = np.arange(len(values_TC)) + np.cumsum(passed)
    found = np.full((total, values_TC.shape[1]), math.nan)
    found[places] = values_TC
    return found, np.zeros(total, dtype=np.bool_)


def _fill(values_TC: NDArray[np.float64], missing: Missing, log: bool) -> NDArray[np.float64]:
    """Fill missing values; before the first value of a series there is only that one to fill with."""
    if missing not in ("linear", "forward") or not np.isnan(values_TC).any():
        return values_TC
    found = values_TC.copy()
    steps = np.arange(len(found))
    for column in found.T:
        there = np.flatnonzero(~np.isnan(column))
        if not len(there):
            raise DataError("dataset: a series has no value at all; leave it out of dataset.columns")
        if missing == "linear":
            known = np.log(column[there]) if log else column[there]
            line = np.interp(steps, there, known)
            empty = np.isnan(column)
            column[empty] = np.exp(line[empty]) if log else line[empty]
        else:
            before = there[np.maximum(np.searchsorted(there, steps, side="right") - 1, 0)]
            column[:] = column[before]
    return found
