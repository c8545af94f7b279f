"""Read tables from files: delimited text, JSON, Parquet and Arrow. Rows know their location, for errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bigmodel.datasets.files import structured
from bigmodel.datasets.files.columns import Row, Table
from bigmodel.datasets.files.locations import find_file
from bigmodel.datasets.files.table_bytes import STDIN
from bigmodel.datasets.files.table_format import SHOWN, Parsed, TableFormat
from bigmodel.errors import DataError, MissingColumnError
from bigmodel.formatting import format_count, truncate

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "SHOWN",
    "STDIN",
    "SUFFIXES",
    "Row",
    "Table",
    "TableFormat",
    "find_file",
    "raise_row_errors",
    "read_rows",
    "sorted_labels",
    "table_from_values",
]

_TYPED = structured.PARQUET | structured.ARROW | structured.JSON | structured.JSON_LINES
_MARK = "\ufeff"  # of an encoding, at the start of a file
_SEPARATORS = {";": "semicolon", "\t": "tab", "|": "pipe", ",": "comma"}
SUFFIXES = frozenset({".csv", ".data", ".test", ".tsv", ".txt"}) | _TYPED


def read_rows(file: str | Path, form: TableFormat, needed: Iterable[str] = ()) -> Table:
    """Read all rows of a file, or of the standard input for `-`. The columns that are `needed` must be there.

    The name states the format: .parquet, .arrow, .feather, .ipc, .json (a list of objects), .jsonl, or else
    delimited text. Files named .gz, .zst, .bz2 or .xz are unpacked.

    Raises:
        ConfigError: there is no such encoding.
        DataError: the file cannot be read or lacks a column, or has invalid rows that may not be skipped.
    """
    wanted = list(needed)
    try:
        parsed = structured.parse_structured(str(file), form)
        if parsed is None:
            from bigmodel.datasets.files import delimited

            parsed = delimited.parse(str(file), form, wanted)
            parsed = replace(parsed, bad={**_repeated_headers(parsed), **parsed.bad})
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except ImportError as error:
        raise DataError(f"{file}: tables need pyarrow; pip install pyarrow") from error
    place = f"{file}:{parsed.header_line}" if parsed.header_line else str(file)
    if len(parsed.names) == 1 and (other := _other_separator(parsed.names[0])) is not None and not form.columns:
        shown = truncate(parsed.names[0], 100)
        raise DataError(
            f"{place}: has one column, '{shown}'; if another character separates its fields, set "
            f"dataset.separator={other}"
        )
    names, columns, notes = _distinct(parsed, place, wanted)
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise MissingColumnError(place, lacking[0], _describe_columns(names, form, lacking))
    return Table(str(file), names, columns, form, parsed, notes)


def table_from_values(columns: Mapping[str, Sequence[str]], place: str, form: TableFormat) -> Table:
    """Build a table of values in memory; `place` stands for its file in errors."""
    import pyarrow

    arrays = [pyarrow.chunked_array([pyarrow.array(values, pyarrow.string())]) for values in columns.values()]
    return Table(place, [*columns], arrays, form, Parsed([*columns], arrays, lambda row: row + 1))


def _distinct(
    parsed: Parsed, place: str, wanted: Sequence[str]
) -> tuple[list[str], list[pyarrow.ChunkedArray], list[str]]:
    """Return the names that differ: empty columns without one are left out, and a name that was there gets a number.

    Raises:
        DataError: a column that is needed is there twice.
    """
    counts = Counter(parsed.names)
    twice = next((name for name in wanted if counts[name] > 1), None)
    if twice is not None:
        numbers = [str(n) for n, name in enumerate(parsed.names, 1) if name == twice]
        raise DataError(
            f"{place}: needs one column '{twice}', and columns {' and '.join(numbers)} have this name; give all "
            f"{len(parsed.names)} columns names of their own: dataset.header=true dataset.columns=[...]"
        )
    names: list[str] = []
    known: set[str] = set()  # the same
    columns: list[pyarrow.ChunkedArray] = []
    renamed: list[str] = []
    dropped = 0
    for number, (name, column) in enumerate(zip(parsed.names, parsed.columns, strict=True), 1):
        own = name
        if not name and name not in wanted:
            if _is_empty(column):
                dropped += 1
                continue
            own = name if counts[name] == 1 else f"column{number}"
        for again in range(1, len(parsed.names) + 1):
            if own not in known and (own == name or own not in counts):
                break
            own = f"{name or f'column{number}'}.{again}"
        if own != name:
            renamed.append(f"'{name}' in column {number} is '{own}'")
        names.append(own)
        known.add(own)
        columns.append(column)
    notes = [*parsed.notes]
    if dropped:
        notes.append(f"{place}: {format_count(dropped, 'column')} without a name or a value left out")
    if renamed:
        notes.append(f"{place}: columns have the same name: {truncate('; '.join(renamed), 200)}")
    return names, columns, notes


def _repeated_headers(parsed: Parsed) -> dict[int, str]:
    """Return what is wrong with rows that have the name of each column in it, as where files with a header follow each
    other in one; by index. Such a file may begin with a mark of its encoding, or write the names in other case.
    A single column may have its name as a value.
    """
    from pyarrow import compute

    if len(parsed.names) < 2 or not len(parsed.columns[0]):
        return {}
    names = [_plain_name(name) for name in parsed.names]
    first = compute.utf8_lower(compute.utf8_trim(parsed.columns[0], f"{_MARK} \t"))
    alike = compute.indices_nonzero(compute.equal(first, names[0])).to_pylist()
    rows = [n for n in alike if [_plain_name(column[n].as_py() or "") for column in parsed.columns] == names]
    return dict.fromkeys(rows, "repeats the header")


def _plain_name(name: str) -> str:
    return name.strip(f"{_MARK} \t").lower()


def _is_empty(column: pyarrow.ChunkedArray) -> bool:
    import pyarrow
    from pyarrow import compute

    if not pyarrow.types.is_string(column.type):
        return bool(column.null_count == len(column))
    return not bool(compute.any(compute.not_equal(column, "")).as_py())


def _describe_columns(names: Sequence[str], form: TableFormat, lacking: Sequence[str]) -> str:
    """Return the columns that there are, and what may be the reason that another is not among them."""
    shown = f"the columns are: {truncate(', '.join(names), 300) or 'none'}"
    alike = [name for name in names if name.strip().lower() == lacking[0].strip().lower()]
    if alike:
        return f"{shown}; did you mean '{alike[0]}'?"
    if form.columns is None and form.header is None:
        return f"{shown}; if the first line is a row, name them: dataset.columns=[...]"
    return shown


def _other_separator(name: str) -> str | None:
    """Return another character that may separate the fields of a line taken for one name, as it can be typed."""
    return next((spelled for one, spelled in _SEPARATORS.items() if one in name), None)


def raise_row_errors(problems: Sequence[str], file: str | Path) -> None:
    """Raise DataError with the first few of these lines, if there are any."""
    if problems:
        more = [f"{file}: {format_count(len(problems) - SHOWN, 'more bad row')}"] if len(problems) > SHOWN else []
        raise DataError(*problems[:SHOWN], *more)


def describe_skipped_rows(problems: Sequence[str], file: str | Path) -> str:
    """Return a warning that counts the rows that were skipped and shows the first of these lines."""
    count = format_count(len(problems), "bad row")
    return f"warning: {file}: {count} skipped (dataset.broken=skip); the first: {problems[0]}"


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """Return distinct labels, sorted as numbers if all are whole numbers."""
    distinct = set(labels)
    try:
        return sorted(distinct, key=lambda label: (int(label), label))
    except ValueError:
        return sorted(distinct)
