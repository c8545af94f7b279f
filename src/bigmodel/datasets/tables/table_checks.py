"""Validate the rows of a table: report the problems of all columns at once, or drop the rows that have them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bigmodel.datasets.files.table_files import SHOWN, Row, Table, describe_skipped_rows
from bigmodel.datasets.files.timestamps import date_parts, parse_timestamps
from bigmodel.datasets.tables.roles import ColumnRoles
from bigmodel.errors import DataError
from bigmodel.formatting import format_count

WAY_OUT = "dataset.broken=skip leaves such rows out"
_MOSTLY = 0.5  # of the rows: if more are bad, a setting is wrong, or the file
_TIMES = 3  # least occurrences of a number that may stand for a missing value
_COLUMNS = 20  # of which a report shows a problem each


def valid_rows(
    table: Table, roles: ColumnRoles, target: str, target_type: str, time: str | None, time_format: str | None
) -> tuple[list[Row], list[str]]:
    """Return the rows that have all that is needed, and notes of those left out.

    Raises:
        DataError: some are bad, and none may be left out, or none is left.
    """
    needed = [*roles.numbers, *roles.dates, *roles.categories, target, *([] if time is None else [time])]
    found: dict[int, tuple[str, str]] = {row: ("", what) for row, what in table.width_problems(needed).items()}

    def add(column: str, problems: Mapping[int, str]) -> None:
        for row, what in problems.items():
            found.setdefault(row, (column, str(table.error_at(row, column, what))))

    for name in roles.numbers:
        add(name, table.numbers(name)[1])
    for name, form in roles.dates.items():
        add(name, date_parts(table.texts(name), form)[1])
    add(target, _target_problems(table, target, target_type))
    if time is not None:
        texts = table.texts(time)
        add(time, {row: "missing" for row, text in enumerate(texts) if not text})
        add(time, parse_timestamps(texts, time_format)[1])
    return rows_without_problem(table, found)


def _target_problems(table: Table, target: str, target_type: str) -> dict[int, str]:
    texts = table.texts(target)
    problems: dict[int, str] = {}
    if target_type == "number":
        values, problems = table.numbers(target)
        empty = [row for row, value in enumerate(values.tolist()) if math.isnan(value) and row not in problems]
    else:
        empty = [row for row, text in enumerate(texts) if not text]
    for row in empty:
        written = table.as_written(row, target)
        way_out = f"'{written}' stands for none by dataset.missing: take it out of there if it is a class"
        problems[row] = f"the target is missing; {way_out if written else 'fill it or remove the row'}"
    return problems


def describe_missing(table: Table, roles: ColumnRoles) -> list[str]:
    """Say how many values of each feature are missing, and what they count as."""
    numbers, categories = [*roles.numbers, *roles.dates], roles.categories
    lines = []
    for names, what in ((numbers, "the column's mean"), (categories, "a category of their own")):
        counts = {name: sum(not text for text in table.texts(name)) for name in names}
        most = sorted((name for name in names if counts[name]), key=counts.__getitem__, reverse=True)
        if most:
            more = [format_count(len(most) - _COLUMNS, "more column")] if len(most) > _COLUMNS else []
            shown = ", ".join([*(f"{name} {counts[name]:,}" for name in most[:_COLUMNS]), *more])
            lines.append(f"values missing in {format_count(len(table), 'row')}: {shown}; they count as {what}")
    return lines


def likely_sentinels(name: str, values: NDArray[np.float64], setting: str) -> list[str]:
    """Warn of -200, -999, 9999 and the like far from all other values: they may mark missing values."""
    there = np.unique(values[np.isfinite(values)])
    lines = []
    for number, rest in ((there[:1], there[1:]), (there[-1:], there[:-1])):
        if len(rest) < 2 or not _is_round(float(number[0])):
            continue
        count = int((values == number[0]).sum())
        away = float(min(abs(number[0] - rest[0]), abs(number[0] - rest[-1])))
        if count >= _TIMES and away > float(rest[-1] - rest[0]):
            lines.append(
                f"warning: column '{name}': {number[0]:g} stands {count:,} times, far from all other values; "
                f"if it stands for none set dataset.{setting}"
            )
    return lines


def _is_round(number: float) -> bool:
    """Return whether a number is -1, -200 or the like, or 99, 999, 9999 and so on with either sign."""
    size = abs(number)
    return number in (-1.0, -100.0, -200.0, -500.0, -1000.0) or (set(f"{size:g}") == {"9"} and size > 9)


def rows_without_problem(table: Table, found: Mapping[int, tuple[str, str]]) -> tuple[list[Row], list[str]]:
    """Return the rows without a problem; `found` has each problem's column and text; skipped ones are counted.

    Raises:
        DataError: rows are bad and may not be skipped; a problem of each column is among those shown.
    """
    problems = [found[row] for row in sorted(found)]
    if problems and table.format.broken == "refuse":
        raise DataError(*format_problems(problems, table.file, WAY_OUT, len(table)))
    if len(problems) > _MOSTLY * len(table):
        hint = f"{len(problems):,} of {format_count(len(table), 'row')} are too many to skip"
        raise DataError(*format_problems(problems, table.file, hint, len(table)))
    rows = [row for row in table if row.index not in found]
    skipped = [*table.skipped, *(what for _, what in problems)]
    if not rows:
        raise DataError(f"{table.file}: holds no rows that can be used", *skipped[:SHOWN])
    return rows, [describe_skipped_rows(skipped, table.file)] if skipped else []


def format_problems(problems: Sequence[tuple[str, str]], file: str, hint: str, rows: int = 0) -> list[str]:
    """Return lines for the first few problems, one of each column at least, and how many more there are.

    A column that is wrong in each of the table's `rows`, if these are given, has one line: skipping is no way out.
    """
    counts = Counter(column for column, _ in problems)
    if len(counts) == 1 and 1 < rows == len(problems) and problems[0][0]:
        return [f"{problems[0][1]}; the same in each of the {rows:,} rows"]
    firsts = {column: place for place, (column, _) in reversed([*enumerate(problems)])}
    shown = set(sorted(firsts.values())[:_COLUMNS])
    rest = (place for place in range(len(problems)) if place not in shown)
    shown |= {place for place, _ in zip(rest, range(SHOWN - len(shown)), strict=False)}
    lines = [problems[place][1] for place in sorted(shown)]
    lines[-1] += f"; {hint}"
    if len(shown) < len(problems):
        of = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(_COLUMNS) if name)
        lines.append(
            f"{file}: {format_count(len(problems) - len(shown), 'more bad row')}"
            f"{f'; by column: {of}' if len(counts) > 1 else ''}"
        )
    return lines
