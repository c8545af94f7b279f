"""Delimited text (CSV and its kin) as columns of strings.

pyarrow parses the columns. It accepts stray quotation marks and knows no lines, so a file with quotation marks is first
read by the standard library's strict reader, which finds the line of every row and of every such mistake.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bigmodel.datasets.files.table_bytes import text_bytes
from bigmodel.datasets.files.table_format import MAX_COLUMNS, SHOWN, Parsed, TableFormat, delimiter
from bigmodel.datasets.files.table_header import Header, read_header
from bigmodel.errors import DataError
from bigmodel.formatting import format_count, truncate

if TYPE_CHECKING:
    import pyarrow

_BLOCK = 1 << 24  # bytes that pyarrow parses at once: a row must fit
_LARGEST_BLOCK = (1 << 31) - 1

csv.field_size_limit(_LARGEST_BLOCK)  # the default refuses cells of more than 131,072 characters


def parse(file: str, form: TableFormat, wanted: Sequence[str]) -> Parsed:
    """Parse a text file into columns, all as strings.

    Raises:
        DataError: it cannot be read, is empty, or is not delimited text; the line is named.
    """
    from pyarrow import compute

    content = text_bytes(file, form.encoding)
    dialect: dict[str, Any] = {
        "delimiter": delimiter(form.separator, file),
        "quoting": csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE,
        "skipinitialspace": True,
        "strict": True,
    }
    header = read_header(content, file, form, dialect, wanted)
    body = content[header.end :]
    skipped = []
    del content
    if form.quoted and b'"' in body:
        strict, mistakes = _strict_pass(body, header.lines, dialect, file)
        if mistakes and form.broken == "refuse":
            more = [f"{file}: {format_count(len(mistakes) - SHOWN, 'more bad row')}"] if len(mistakes) > SHOWN else []
            raise DataError(*mistakes[:SHOWN], *more)
        skipped += mistakes
        if mistakes or _needs_rewriting(body, dialect["delimiter"], form.strip):
            body = _rewritten(body, dialect)
        columns, ragged, count = _parse(body, len(header.names), dialect, form.quoted, file)
        if count != len(strict):  # pyarrow cuts rows elsewhere, as at a quotation mark within a field
            body = _rewritten(body, dialect)
            columns, ragged, count = _parse(body, len(header.names), dialect, form.quoted, file)

        line = _strict_lines(strict)
    else:
        columns, ragged, count = _parse(body, len(header.names), dialect, form.quoted, file)
        line = _plain_lines(body, header.lines)
        if " " not in form.strip:
            columns = [compute.utf8_ltrim(column, " ") for column in columns]
    records = np.delete(np.arange(count), list(ragged))
    if form.comment is not None:
        columns, records = _without_comments(columns, records, form.comment)
        ragged = {n: fields for n, fields in ragged.items() if not fields[0].startswith(form.comment)}
    return _with_ragged(header, columns, records, ragged, line, file, form.broken == "skip", skipped)


def _strict_pass(body: bytes, lines: int, dialect: Mapping[str, Any], file: str) -> tuple[NDArray[Any], list[str]]:
    """Return the line of each row, and what the strict reader says of rows that are none."""
    reader = csv.reader(_text(body), **dialect)
    found = []
    mistakes = []
    before = 0
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            mistake = f"{file}:{lines + before + 1}: not CSV: {error}"
            if reader.line_num == before or "unexpected end" in str(error):  # the rest of the file lies in one cell
                raise DataError(f"{mistake}; a quotation mark that opens here is never closed") from error
            mistakes.append(mistake)
            before = reader.line_num
            continue
        if fields:
            found.append(lines + before + 1)
        before = reader.line_num
    return np.array(found, dtype=np.int64), mistakes


def _needs_rewriting(body: bytes, separator: str, strip: str) -> bool:
    """Return whether blanks stand before a quotation mark, or before a value from which nothing strips them later."""
    blanks = b" " if " " not in strip else b' +"'
    return re.search(rb"(?:\A|[\r\n]|" + re.escape(separator.encode()) + b")" + blanks, body) is not None


def _rewritten(body: bytes, dialect: Mapping[str, Any]) -> bytes:
    """Return the same rows as pyarrow reads them: no blanks before quotation marks, and without rows that are none."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=dialect["delimiter"], lineterminator="\n", quoting=csv.QUOTE_ALL)
    reader = csv.reader(_text(body), **dialect)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return out.getvalue().encode("utf-8")
        except csv.Error:
            continue
        if fields:
            writer.writerow(fields)


def _text(body: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(body), encoding="utf-8", newline="")


def _parse(
    body: bytes, width: int, dialect: Mapping[str, Any], quoted: bool, file: str
) -> tuple[list[pyarrow.ChunkedArray], dict[int, list[str]], int]:
    """Return the columns of rows that have `width` fields, the fields of other rows by index, and the row count."""
    import pyarrow
    from pyarrow import csv as arrow_csv

    ragged: dict[int, list[str]] = {}

    def keep(row: Any) -> str:
        fields = next(csv.reader([row.text], **{**dialect, "strict": False}), [""])
        ragged[row.number - 1] = fields[: max(width, MAX_COLUMNS) + 1]
        return "skip"

    names = [str(n) for n in range(width)]
    for block in (_BLOCK, _LARGEST_BLOCK):
        ragged.clear()
        try:
            table = arrow_csv.read_csv(
                pyarrow.BufferReader(body),
                arrow_csv.ReadOptions(use_threads=False, block_size=min(block, len(body) + 1), column_names=names),
                arrow_csv.ParseOptions(
                    delimiter=dialect["delimiter"],
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                    invalid_row_handler=keep,
                ),
                arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pyarrow.string()), strings_can_be_null=False, check_utf8=False
                ),
            )
        except pyarrow.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return [pyarrow.chunked_array([], pyarrow.string()) for _ in names], {}, 0
            if block != _BLOCK:
                raise DataError(f"{file}: not CSV: {truncate(error)}") from error
        else:
            return table.columns, ragged, len(table) + len(ragged)
    raise AssertionError


def _strict_lines(strict: NDArray[Any]) -> Callable[[int], int]:
    return lambda record: int(strict[record])


def _plain_lines(body: bytes, lines: int) -> Callable[[int], int]:
    """Return the line of each row where no row has two; computed when the first is asked for."""

    @cache
    def places() -> NDArray[Any]:
        return np.flatnonzero([bool(line) for line in body.splitlines()]) + lines + 1

    return lambda record: int(places()[record])


def _without_comments(
    columns: Sequence[pyarrow.ChunkedArray], records: NDArray[Any], comment: str
) -> tuple[list[pyarrow.ChunkedArray], NDArray[Any]]:
    from pyarrow import compute

    kept = compute.invert(compute.starts_with(columns[0], comment))
    return [column.filter(kept) for column in columns], records[kept.to_numpy()]


def _with_ragged(
    header: Header,
    columns: Sequence[pyarrow.ChunkedArray],
    records: NDArray[Any],
    ragged: Mapping[int, list[str]],
    line: Callable[[int], int],
    file: str,
    skip: bool,
    skipped: list[str],
) -> Parsed:
    """Put rows of too few or too many fields where they belong, or leave them out. Empty fields too many are no
    mistake.
    """
    import pyarrow

    width = len(header.names)
    words = {n: _fields(fields, width) for n, fields in ragged.items() if any(fields[width:])}
    if skip:
        left_out = {n for n, fields in ragged.items() if n in words or len(fields) < width}
        few = {n: _fields(ragged[n], width) for n in left_out}
        skipped = sorted([*skipped, *(f"{file}:{line(n)}: {few[n]}" for n in left_out)], key=_line_number)
        ragged = {n: fields for n, fields in ragged.items() if n not in left_out}
    if ragged:
        order = np.argsort(np.concatenate([records, list(ragged)]), kind="stable")
        cells = zip(*([*fields[:width], *[""] * (width - len(fields))] for fields in ragged.values()), strict=True)
        columns = [
            pyarrow.chunked_array([*column.chunks, pyarrow.array(more, pyarrow.string())]).take(order)
            for column, more in zip(columns, cells, strict=True)
        ]
        records = np.sort(np.concatenate([records, list(ragged)])).astype(np.int64)
    row_of = {int(n): row for row, n in enumerate(records.tolist()) if n in ragged} if ragged else {}
    longer = sum(len(fields) > width and n not in words for n, fields in ragged.items())
    notes = [f"{file}: separators without a column end {format_count(longer, 'row')}; passed over"] if longer else []
    return Parsed(
        header.names,
        columns,
        lambda row: line(int(records[row])),
        bad={row_of[n]: text for n, text in words.items() if n in row_of},
        short={row_of[n]: len(fields) for n, fields in ragged.items() if len(fields) < width},
        skipped=skipped,
        notes=[*header.notes, *notes],
        header_line=header.line,
    )


def _line_number(place: str) -> int:
    return int(place.split(": ")[0].rpartition(":")[2])


def _fields(fields: Sequence[str], width: int) -> str:
    return f"has {format_count(len(fields), 'field')}, for {format_count(width, 'column')}"
