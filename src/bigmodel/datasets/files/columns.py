"""Columns of a table, as texts and as numbers, and its rows, each with its location in the file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bigmodel.datasets.files.table_format import STAND_INS, Parsed, TableFormat
from bigmodel.errors import DataError
from bigmodel.formatting import truncate

if TYPE_CHECKING:
    import pyarrow


class Table(Sequence["Row"]):
    """Rows of a file. `columns` maps names to positions; `notes` and `skipped` are lines for users.

    Values come by whole columns, which is fast, or from rows, which are built on access.
    """

    def __init__(
        self,
        file: str,
        names: Sequence[str],
        columns: Sequence[pyarrow.ChunkedArray],
        form: TableFormat,
        parsed: Parsed,
        notes: Sequence[str] = (),
    ) -> None:
        self.file = file
        self.format = form
        self.notes = list(notes)
        self.skipped = list(parsed.skipped)
        self.columns: Mapping[str, int] = {name: place for place, name in enumerate(names)}
        self._columns = list(columns)
        self._parsed = parsed
        self._count = len(columns[0]) if columns else 0
        self._texts: dict[str, list[str]] = {}
        self._numbers: dict[str, tuple[NDArray[np.float64], dict[int, str]]] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [Row(self, row) for row in range(self._count)[index]]
        return Row(self, range(self._count)[index])

    def __iter__(self) -> Iterator[Row]:
        return (Row(self, row) for row in range(self._count))

    def last_rows(self, count: int) -> Table:
        """Return a table of its last rows."""
        first = max(0, self._count - count)
        parsed = replace(
            self._parsed,
            line=lambda row: self._parsed.line(first + row),
            bad={row - first: what for row, what in self._parsed.bad.items() if row >= first},
            short={row - first: length for row, length in self._parsed.short.items() if row >= first},
        )
        columns = [column.slice(first) for column in self._columns]
        return Table(self.file, [*self.columns], columns, self.format, parsed, self.notes)

    def location(self, row: int) -> str:
        """`file:line`, or `file:row` where the file has no lines."""
        return f"{self.file}:{self._parsed.line(row)}"

    def texts(self, column: str) -> list[str]:
        """Return the values of a column, empty where they are missing, or where a row ends before."""
        if column not in self._texts:
            found = self._columns[self.columns[column]]
            self._texts[column] = self._strip(found).to_pylist() if _is_text(found) else self._written(found)
        return self._texts[column]

    def numbers(self, column: str) -> tuple[NDArray[np.float64], dict[int, str]]:
        """Return the values of a column as numbers, NaN where they are missing or wrong, and what is wrong, by row."""
        if column not in self._numbers:
            values = self._cast(self._columns[self.columns[column]])
            self._numbers[column] = self._closely(column) if values is None else (values, {})
        return self._numbers[column]

    def _closely(self, column: str) -> tuple[NDArray[np.float64], dict[int, str]]:
        numbers = np.full(self._count, math.nan)
        problems = {}
        is_typed = not _is_text(self._columns[self.columns[column]])  # a decimal comma is a matter of texts
        decimal = "." if is_typed else self.format.decimal
        for row, text in enumerate(self.texts(column)):
            if text:
                try:
                    numbers[row] = number(text, decimal)
                except ValueError as error:
                    problems[row] = str(error)
        return numbers, problems

    def width_problem(self, row: int, column: str) -> DataError | None:
        """Return the error of a row with too few or too many fields to have this column; None if it has it."""
        if row in self._parsed.bad:
            return DataError(f"{self.location(row)}: {self._parsed.bad[row]}")
        length = self._parsed.short.get(row)
        if length is not None and self.columns[column] >= length:
            return self.error_at(row, column, f"not there: the row ends after {length}")
        return None

    def width_problems(self, columns: Sequence[str]) -> dict[int, str]:
        """Return errors of all rows whose number of fields is wrong for these columns, by row."""
        found = {}
        for row in sorted({*self._parsed.bad, *self._parsed.short}):
            error = next((e for e in (self.width_problem(row, column) for column in columns) if e is not None), None)
            if error is not None:
                found[row] = str(error)
        return found

    def as_written(self, row: int, column: str) -> str:
        """Return a value as the file has it, even if it stands for a missing one."""
        value = self._columns[self.columns[column]][row].as_py()
        return "" if value is None else str(value).strip()

    def error_at(self, row: int, column: str, what: str) -> DataError:
        """Return the error of a value, with its location."""
        return DataError(f"{self.location(row)}: column '{column}': {what}")

    def _strip(self, column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
        import pyarrow
        from pyarrow import compute

        if self.format.strip:
            column = compute.utf8_trim(column, self.format.strip)
        missing = [value for value in self.format.missing if value]
        if missing:
            is_missing = compute.is_in(column, value_set=pyarrow.array(missing, column.type))
            column = compute.if_else(is_missing, pyarrow.scalar("", column.type), column)
        return column

    def _written(self, column: pyarrow.ChunkedArray) -> list[str]:
        missing = set(self.format.missing)
        texts = ("" if value is None else str(value) for value in column.to_pylist())
        return ["" if text in missing else text for text in texts]

    def _cast(self, column: pyarrow.ChunkedArray) -> NDArray[np.float64] | None:
        """Return the values as numbers, or None if one of them must be parsed alone."""
        import pyarrow
        from pyarrow import compute

        if _is_text(column):
            column = self._strip(column)
            if self.format.decimal == ",":
                if compute.any(compute.match_substring(column, ".")).as_py():
                    return None
                column = compute.replace_substring(column, ",", ".")
            column = compute.if_else(compute.equal(column, ""), pyarrow.scalar(None, column.type), column)
        try:
            values = column.cast(pyarrow.float64())
        except pyarrow.ArrowInvalid:
            return None
        found: NDArray[np.float64] = values.fill_null(math.nan).to_numpy()
        strange = (len(found) - values.null_count) != int(np.isfinite(found).sum())
        return None if strange or (not _is_text(column) and set(self.format.missing) - {"", "nan"}) else found


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    table: Table
    index: int

    @property
    def location(self) -> str:
        """`file:line`, or `file:row` where the file has no lines."""
        return self.table.location(self.index)

    @property
    def columns(self) -> Mapping[str, int]:
        return self.table.columns

    def width_problem(self, columns: Sequence[str]) -> DataError | None:
        """Return the error of too few or too many fields for these columns; None if there is none."""
        return next((error for column in columns if (error := self.table.width_problem(self.index, column))), None)

    def text(self, column: str) -> str:
        """Return the value of a column, empty where it is missing.

        Raises:
            DataError: the row has too few fields or too many.
        """
        error = self.table.width_problem(self.index, column)
        if error is not None:
            raise error
        return self.table.texts(column)[self.index]

    def number(self, column: str) -> float:
        """Return the value of a column as a number, NaN if it is missing.

        Raises:
            DataError: it is no finite number.
        """
        error = self.table.width_problem(self.index, column)
        if error is not None:
            raise error
        numbers, problems = self.table.numbers(column)
        if self.index in problems:
            raise self.error_at(column, problems[self.index])
        return float(numbers[self.index])

    def error_at(self, column: str, what: str) -> DataError:
        """Return the error of the value in a column, with its location."""
        return self.table.error_at(self.index, column, what)


def number(text: str, decimal: str = ".") -> float:
    """Return a finite number.

    Raises:
        ValueError: it is none; with a decimal comma, thousands may not be marked by points.
    """
    shown = truncate(text, 40)
    if text.lower() in STAND_INS:
        raise ValueError(f"'{shown}' is not a number; if it stands for none add it to dataset.missing")
    foreign = "_" if decimal == "." else "._"  # Python reads 12_345 as a number; in a file it is a text
    try:
        value = float("x" if any(mark in text for mark in foreign) else text.replace(decimal, "."))
    except ValueError:
        other = "," if decimal == "." else "."
        hint = f"; dataset.decimal='{other}'?" if _reads(text, other) else ""
        if re.fullmatch(rf"[-+]?[1-9][0-9]{{0,2}}(\{other}[0-9]{{3}})+(\{decimal}[0-9]+)?", text):
            hint = f"; take marks of thousands out{f', or is it a decimal mark ({hint[2:-1]})?' if hint else ''}"
        raise ValueError(f"'{shown}' is not a number{hint}") from None
    if not math.isfinite(value):
        raise ValueError(f"'{shown}' is not a finite number")
    return value


def _reads(text: str, decimal: str) -> bool:
    try:
        return math.isfinite(float(text.replace(decimal, "."))) and text.count(decimal) == 1
    except ValueError:
        return False


def _is_text(column: pyarrow.ChunkedArray) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type))
