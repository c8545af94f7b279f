"""Texts with a label each, as files hold them: CSV, tab-separated values, and the question files of TREC."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigmodel.errors import DataError

_SHOWN = 5  # mistakes in one report; a wrong column would give one a row


@dataclass(frozen=True)
class Row:
    """`place` is file and line."""

    place: str
    text: str
    label: str


def table(file: Path, text_columns: Sequence[str], label_column: str) -> list[Row]:
    """Rows of a file with a header; `.tsv` has a tab between two fields and no quotes, anything else is CSV.

    The text's column has one of the names in `text_columns`.

    Raises:
        DataError: the file cannot be read, or has bad rows; each is named by file, line and column.
    """
    tabs = file.suffix.lower() == ".tsv"
    rows: list[Row] = []
    problems: list[str] = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if tabs:
                reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            else:
                reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            text_column = next((name for name in text_columns if name in header), text_columns[0])
            for column in (text_column, label_column):
                if header.count(column) != 1:
                    known = ", ".join(header) or "none"
                    raise DataError(f"{file}:1: needs one column '{column}'; the columns are: {known}")
            places = {column: header.index(column) for column in (text_column, label_column)}
            for fields in filter(None, reader):
                place = f"{file}:{reader.line_num}"
                if len(fields) > len(header):
                    problems.append(f"{place}: column {len(header) + 1}: has no name; the header names {len(header)}")
                    continue
                cells = {name: fields[at].strip() if at < len(fields) else "" for name, at in places.items()}
                problems += [f"{place}: column '{name}': empty" for name, cell in cells.items() if not cell]
                rows.append(Row(place, cells[text_column], cells[label_column]))
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text: {error}") from error
    except OSError as error:
        raise DataError(f"dataset: {file} cannot be read: {error.strerror or error}") from error
    refuse(problems, file)
    return rows


def questions(file: Path) -> list[Row]:
    """Lines as `NUM:dist How far is it ?`: of the label what is before the colon, then a blank, then the text.

    Raises:
        DataError: the file cannot be read, or has bad lines.
    """
    try:
        lines = file.read_text(encoding="latin-1").split("\n")
    except OSError as error:
        raise DataError(f"dataset: {file} cannot be read: {error.strerror or error}") from error
    rows: list[Row] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        label, _, text = line.strip().partition(" ")
        if label and text:
            rows.append(Row(f"{file}:{number}", text.strip(), label.partition(":")[0]))
        elif label:
            problems.append(f"{file}:{number}: column 'text': empty; a line is a label, a blank and a question")
    refuse(problems, file)
    return rows


def refuse(problems: Sequence[str], file: Path) -> None:
    """DataError with the first few of these lines, if there are any."""
    if problems:
        more = [f"{file}: {len(problems) - _SHOWN} more bad rows"] if len(problems) > _SHOWN else []
        raise DataError(*problems[:_SHOWN], *more)
