"""The first line of delimited text: names of columns, or already a row."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bigmodel.datasets.files.table_format import MAX_COLUMNS, TableFormat
from bigmodel.datasets.files.timestamps import looks_like_dates
from bigmodel.errors import DataError
from bigmodel.formatting import format_count, truncate

_LONGEST = 1 << 26  # bytes of the first line
_SPREADSHEETS = re.compile(rb"\"?sep=([^\r\n])\"?[\r\n]", re.IGNORECASE)  # a first line that tells them the separator


@dataclass
class Header:
    """The columns' names, and where the first row begins: bytes and lines from the file's start."""

    names: Sequence[str]
    end: int
    lines: int
    line: int  # of the header itself
    notes: list[str] = field(default_factory=list)


def read_header(
    content: bytes, file: str, form: TableFormat, dialect: Mapping[str, Any], wanted: Sequence[str]
) -> Header:
    """Return the first line, behind empty ones, comments and `sep=;`, where it is a header, or else the names of
    `form`.

    Raises:
        DataError: there is no line, it is not CSV, has too many columns, or looks like a row.
    """
    if content.find(b"\n", 0, _LONGEST) < 0 and content.find(b"\r", 0, _LONGEST) < 0 and len(content) > _LONGEST:
        raise DataError(f"{file}:1: the first line is longer than {_LONGEST:,} bytes; is it a table?")
    declared = _SPREADSHEETS.match(content)
    if declared is not None and (said := declared[1].decode("ascii", "replace")) != dialect["delimiter"]:
        typed = "tab" if said == "\t" else f'"{said}"'
        raise DataError(f"{file}:1: says that fields are separated by '{said}'; set dataset.separator={typed}")
    ends = [0]  # byte after each line that was read

    def lines() -> Iterator[str]:
        for line in io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline=""):
            ends.append(ends[-1] + len(line.encode("utf-8")))
            yield line

    reader = csv.reader(lines(), **dialect)
    before = 0
    fields = None
    try:
        for found in reader:
            passed_over = before == 0 and declared is not None
            if found and not passed_over and not (form.comment is not None and found[0].startswith(form.comment)):
                fields = found
                break
            before = reader.line_num
    except csv.Error as error:
        raise DataError(f"{file}:{before + 1}: not CSV: {error}") from error
    if fields is None:
        raise DataError(f"{file}: is empty")
    if len(fields) > MAX_COLUMNS:
        raise DataError(f"{file}:{before + 1}: has {len(fields):,} columns; at most {MAX_COLUMNS:,} are read")
    names, is_header = _names([name.strip() for name in fields], f"{file}:{before + 1}", form, wanted)
    after = reader.line_num if is_header else before
    return Header(names, ends[after], after, before + 1)


def _names(fields: list[str], place: str, form: TableFormat, wanted: Sequence[str]) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether these fields are a header."""
    if form.header is False:
        return list(form.columns or (f"column{n}" for n in range(1, len(fields) + 1))), False
    if form.header is None and form.columns is not None and not set(wanted or form.columns) <= set(fields):
        return list(form.columns), False
    if form.header and form.columns is not None:
        if len(form.columns) != len(fields):
            raise DataError(
                f"{place}: has {format_count(len(fields), 'column')}, and dataset.columns names {len(form.columns)}"
            )
        return list(form.columns), True
    if form.header is None and form.columns is None and _looks_like_a_row(fields):
        shown = truncate(", ".join(fields), 60)
        raise DataError(
            f"{place}: the first line holds numbers ({shown}), no names; if it is a row set dataset.header=false, "
            "else dataset.header=true"
        )
    return fields, True


def _looks_like_a_row(fields: Sequence[str]) -> bool:
    """Return whether all fields are numbers or dates, and not consecutive ones, which name years or columns."""
    dates = {name for name in fields if looks_like_dates([name])}
    try:
        numbers = [float(name.replace(",", ".")) for name in fields if name and name not in dates]
    except ValueError:
        return False
    if not numbers or not all(map(math.isfinite, numbers)):
        return False
    if dates:
        return True
    steps = Counter(after - one for one, after in pairwise(numbers))
    return len(numbers) == 1 or set(steps) != {1.0}
