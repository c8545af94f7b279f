"""Tables in files: CSV and its kin, also gzipped, and Parquet. A row knows its place, so that errors can name it."""

from __future__ import annotations

import csv
import glob
import io
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bigmodel.archive import opened
from bigmodel.errors import DataError
from bigmodel.words import clip

STDIN = "-"
SUFFIXES = frozenset({".csv", ".data", ".parquet", ".test", ".tsv", ".txt"})
SHOWN = 5  # mistakes in one report; a wrong role or folder would give one a row


@dataclass(frozen=True)
class Format:
    """How a text file is written. Parquet has its own names and no need of the rest but `strip` and `missing`.

    `columns` are the names where the first line has none. `strip` are characters to take off both ends of a value;
    `missing` are the values that then stand for none. Unless `quoted`, a quotation mark is a letter like others. Lines
    that begin with `comment`, and empty ones, are passed over.
    """

    columns: Sequence[str] | None = None
    separator: str = ","
    comment: str | None = None
    strip: str = " "
    missing: Sequence[str] = ("",)
    quoted: bool = True

    def __post_init__(self) -> None:
        if len(self.separator) != 1 or self.separator in '"\r\n':
            raise ValueError(f"separator: must be one character, not '{self.separator}'")


@dataclass(frozen=True)
class Row:
    """One row: `place` is file:line, or file:row of Parquet; `columns` says where in it each column is."""

    place: str
    fields: Sequence[str]
    columns: Mapping[str, int]
    format: Format

    def text(self, column: str) -> str:
        """The value of a column, empty where it is missing.

        Raises:
            DataError: the row has too few fields or too many.
        """
        if len(self.fields) > len(self.columns):
            raise DataError(f"{self.place}: has {len(self.fields)} fields, for {len(self.columns)} columns")
        index = self.columns[column]
        if index >= len(self.fields):
            raise self.wrong(column, f"not there: the row ends after {len(self.fields)}")
        value = self.fields[index].strip(self.format.strip)
        return "" if value in self.format.missing else value

    def number(self, column: str) -> float:
        """The same as a number, NaN where it is missing.

        Raises:
            DataError: it is no finite number.
        """
        value = self.text(column)
        try:
            number = float(value) if value else math.nan
        except ValueError:
            raise self.wrong(column, f"'{clip(value, 40)}' is not a number") from None
        if value and not math.isfinite(number):
            raise self.wrong(column, f"'{clip(value, 40)}' is not a finite number")
        return number

    def moment(self, column: str) -> tuple[float, str]:
        """Its value as something to sort by: numbers in their order, then texts, as dates written 2026-11-24 sort."""
        value = self.text(column)
        try:
            return float(value), ""
        except ValueError:
            return math.inf, value

    def wrong(self, column: str, what: str) -> DataError:
        """What is wrong with the value of a column, as an error that names the place."""
        return DataError(f"{self.place}: column '{column}': {what}")


def find(root: str, name: str, key: str, source: str | None) -> Path:
    """The file of this name in the folder, or in one up to two below it.

    Raises:
        DataError: there is none; `source` says where it is to be had.
    """
    folder = Path(root).expanduser().absolute()
    for pattern in ("", "*/", "*/*/"):
        found = sorted(folder.glob(f"{pattern}{glob.escape(name)}")) if not Path(name).is_absolute() else [Path(name)]
        if found and found[0].is_file():
            return found[0]
    where = f"; it is to be had from {source}" if source else ""
    raise DataError(f"dataset.{key}: there is no '{name}' in {folder} or in a folder up to two below it{where}")


def read(file: str | Path, form: Format, needed: Iterable[str] = ()) -> list[Row]:
    """All rows of a file, or of the standard input for `-`. The columns that are `needed` must be there.

    What is named .gz is unpacked. The first line is a header where it has all of `needed`, even where the format has
    its own names.

    Raises:
        DataError: the file cannot be read or lacks a column.
    """
    wanted = list(needed)
    try:
        return _parquet(Path(file), form, wanted) if Path(file).suffix == ".parquet" else _text(file, form, wanted)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error


def _text(file: str | Path, form: Format, wanted: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    columns: dict[str, int] | None = None
    with _lines(file) as stream:
        reader = csv.reader(
            stream,
            delimiter=form.separator,
            quoting=csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE,
            skipinitialspace=True,
            strict=True,
        )
        try:
            for fields in reader:
                if not fields or (form.comment is not None and fields[0].startswith(form.comment)):
                    continue
                place = f"{file}:{reader.line_num}"
                if columns is None:
                    names = [name.strip() for name in fields]
                    headed = form.columns is None or set(wanted) <= set(names)
                    columns = _columns(place, names if headed else form.columns or (), wanted)
                    if headed:
                        continue
                rows.append(Row(place, fields, columns, form))
        except csv.Error as error:
            raise DataError(f"{file}:{reader.line_num}: not CSV: {error}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: not UTF-8 text: {error}") from error
    if columns is None:
        raise DataError(f"{file}: is empty")
    return rows


@contextmanager
def _lines(file: str | Path) -> Iterator[TextIO]:
    if str(file) == STDIN:
        yield sys.stdin
        return
    with (
        opened(Path(file)) if Path(file).suffix == ".gz" else open(file, "rb") as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text,
    ):
        yield text


def _parquet(file: Path, form: Format, wanted: Sequence[str]) -> list[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{file}: Parquet needs pyarrow; pip install 'bigmodel-train[parquet]'") from error
    try:
        table = parquet.read_table(file)
    except pyarrow.ArrowException as error:
        raise DataError(f"{file}: cannot be read as Parquet: {clip(error)}") from error
    columns = _columns(str(file), table.column_names, wanted)
    texts = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
    return [Row(f"{file}:{number}", fields, columns, form) for number, fields in enumerate(zip(*texts, strict=True), 1)]


def _columns(place: str, names: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    twice = next((name for name in [*wanted, *names] if names.count(name) != 1), None)
    if twice is not None:
        shown = clip(", ".join(names), 300) or "none"
        raise DataError(f"{place}: needs one column '{twice}'; the columns are: {shown}")
    return {name: index for index, name in enumerate(names)}


def refuse(problems: Sequence[str], file: str | Path) -> None:
    """DataError with the first few of these lines, if there are any."""
    if problems:
        more = [f"{file}: {len(problems) - SHOWN} more bad rows"] if len(problems) > SHOWN else []
        raise DataError(*problems[:SHOWN], *more)


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """Each once, sorted as numbers if all are whole numbers."""
    distinct = set(labels)
    try:
        return sorted(distinct, key=lambda label: (int(label), label))
    except ValueError:
        return sorted(distinct)
