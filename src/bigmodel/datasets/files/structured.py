"""Tables in files that know their columns: Parquet, Arrow, JSON, JSON lines. Values become the strings CSV has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmodel.datasets.files.json_values import parse_json
from bigmodel.datasets.files.table_bytes import (
    COPIES,
    bare_name,
    check_readable,
    text_bytes,
    too_large_error,
    total_memory,
)
from bigmodel.datasets.files.table_format import MAX_COLUMNS, SHOWN, Parsed, TableFormat
from bigmodel.errors import DataError
from bigmodel.formatting import format_count, truncate

if TYPE_CHECKING:
    import pyarrow

PARQUET = frozenset({".parquet", ".pq"})
ARROW = frozenset({".arrow", ".feather", ".ipc"})
JSON = frozenset({".json"})
JSON_LINES = frozenset({".jsonl", ".ndjson"})
_ROWS = 1024  # of Parquet that are decoded at once


def file_format(file: str) -> str:
    """Return the ending that says how a file is written, without that of a compression."""
    return Path(bare_name(file)).suffix


def parse_structured(file: str, form: TableFormat) -> Parsed | None:
    """Parse a file of one of these formats; None where its name is of another.

    Raises:
        DataError: it is damaged, too large, or not a table; the place is named.
    """
    ending = file_format(file)
    if ending in PARQUET | ARROW:
        return _arrow(file, ending)
    if ending in JSON_LINES:
        return _json_lines(file, form)
    return _json(file, form) if ending in JSON else None


def _arrow(file: str, ending: str) -> Parsed:
    import pyarrow
    from pyarrow import ipc, parquet

    check_readable(Path(file))
    try:
        with pyarrow.memory_map(file) as source:
            if ending in PARQUET:
                opened = parquet.ParquetFile(source)
                groups = opened.metadata.num_row_groups
                size = sum(opened.metadata.row_group(n).total_byte_size for n in range(groups))
                _check_width(opened.metadata.num_columns, file)
                if size > total_memory():
                    raise too_large_error(file, size)
                table = _collect_within_memory(opened.schema_arrow, opened.iter_batches(_ROWS), file)
            else:
                table = _ipc(source, ipc, file)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        form = "Parquet" if ending in PARQUET else "Arrow"
        raise DataError(f"{file}: cannot be read as {form}: {truncate(error)}") from error
    return Parsed(table.column_names, [_as_strings(column) for column in table.columns], lambda row: row + 1)


def _ipc(source: Any, ipc: Any, file: str) -> pyarrow.Table:
    """Return the file format of Arrow, or a stream, which carries the same name."""
    import pyarrow

    try:
        reader = ipc.open_file(source)
    except pyarrow.ArrowInvalid:
        source.seek(0)
        stream = ipc.open_stream(source)
        _check_width(len(stream.schema), file)
        return _collect_within_memory(stream.schema, stream, file)
    _check_width(len(reader.schema), file)
    return _collect_within_memory(reader.schema, map(reader.get_batch, range(reader.num_record_batches)), file)


def _collect_within_memory(schema: pyarrow.Schema, batches: Iterable[pyarrow.RecordBatch], file: str) -> pyarrow.Table:
    """Collect the batches into a table while memory holds them: a value that is repeated takes next to no room in a
    file.

    Raises:
        DataError: it does not.
    """
    import pyarrow

    kept = []
    size = 0
    for batch in batches:
        size += batch.nbytes
        if size > total_memory() // COPIES:
            raise too_large_error(file, size)
        kept.append(batch)
    return pyarrow.Table.from_batches(kept, schema).combine_chunks()


def _check_width(columns: int, place: str) -> None:
    if columns > MAX_COLUMNS:
        raise DataError(f"{place}: has {columns:,} columns; at most {MAX_COLUMNS:,} are read")


def _as_strings(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Convert all columns but numbers to strings, empty where a value is missing."""
    import pyarrow
    from pyarrow import types

    kind = column.type
    if types.is_floating(kind) or types.is_integer(kind):
        return column
    if types.is_decimal(kind):
        return column.cast(pyarrow.float64())
    if types.is_string(kind) or types.is_large_string(kind):
        return column.fill_null("")
    texts = ["" if value is None else str(value) for value in column.to_pylist()]
    return pyarrow.chunked_array([pyarrow.array(texts, pyarrow.string())])


def _json_lines(file: str, form: TableFormat) -> Parsed:
    rows = []
    lines = []
    mistakes = []
    for number, line in enumerate(text_bytes(file, form.encoding).decode("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError('not an object, as {"text": "...", "label": "..."}')
        except json.JSONDecodeError as error:
            mistakes.append(f"{file}:{number}: not JSON: {error.msg} at character {error.colno}")
        except (ValueError, RecursionError) as error:
            mistakes.append(f"{file}:{number}: {truncate(error)}")
        else:
            rows.append(row)
            lines.append(number)
    if mistakes and form.broken == "refuse":
        more = [f"{file}: {format_count(len(mistakes) - SHOWN, 'more bad row')}"] if len(mistakes) > SHOWN else []
        raise DataError(*mistakes[:SHOWN], *more)
    return _of_objects(rows, file, lambda row: lines[row], mistakes, form.decimal)


def _json(file: str, form: TableFormat) -> Parsed:
    """Parse a list of objects, or such a list under the only key that holds one."""
    text = text_bytes(file, form.encoding).decode("utf-8")
    try:
        found = parse_json(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            raise DataError(f"{file}:{error.lineno}: is one object a line; name it .jsonl") from error
        raise DataError(f"{file}:{error.lineno}: not JSON: {error.msg} at character {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON: {truncate(error)}") from error
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        if len(lists) == 1:
            found = lists[0]
        elif found and all(isinstance(value, list) for value in found.values()):
            sizes = {len(value) for value in found.values()}
            if len(sizes) == 1:
                found = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError(f'{file}: is not a list of objects, as [{{"text": "...", "label": "..."}}]')
    return _of_objects(found, file, lambda row: row + 1, [], form.decimal)


def _of_objects(rows: Sequence[dict[str, Any]], file: str, line: Any, mistakes: Sequence[str], decimal: str) -> Parsed:
    import pyarrow

    names = list(dict.fromkeys(name for row in rows for name in row))
    _check_width(len(names), file)
    columns = [pyarrow.chunked_array([pyarrow.array(_cells(rows, name, decimal), pyarrow.string())]) for name in names]
    return Parsed(names, columns, line, skipped=mistakes)


def _cells(rows: Iterable[dict[str, Any]], name: str, decimal: str) -> Iterator[str]:
    """Yield a column as texts; JSON's own numbers get the decimal mark that texts of the table have."""
    for row in rows:
        value = row.get(name)
        if isinstance(value, float):
            yield json.dumps(value).replace(".", decimal)
        else:
            yield "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
