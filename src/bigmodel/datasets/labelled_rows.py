"""Texts with a label each, as files hold them: CSV, tab-separated values, and the question files of TREC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigmodel.datasets.rows import Format, read, refuse
from bigmodel.durable import read_bytes
from bigmodel.errors import DataError


@dataclass(frozen=True)
class Row:
    """`place` is file and line."""

    place: str
    text: str
    label: str


def table(file: Path, text_columns: Sequence[str], label_column: str) -> list[Row]:
    """Rows of a file with a header; `.tsv` and `.tsv.gz` have a tab between two fields and no quotes, anything else is
    as in `rows`.

    The text's column has one of the names in `text_columns`.

    Raises:
        DataError: the file cannot be read, or has bad rows; each is named by file, line and column.
    """
    tabs = file.name.lower().removesuffix(".gz").endswith(".tsv")
    form = Format(separator="\t" if tabs else ",", quoted=not tabs, strip=" \t\r\n")
    found = read(file, form, [label_column])
    rows: list[Row] = []
    problems: list[str] = []
    for row in found:
        text_column = next((name for name in text_columns if name in row.columns), None)
        if text_column is None:
            known = ", ".join(row.columns)
            raise DataError(f"{file}:1: needs one column '{text_columns[0]}'; the columns are: {known}")
        try:
            cells = {column: row.text(column) for column in (text_column, label_column)}
        except DataError as error:
            problems += error.lines
            continue
        problems += [f"{row.place}: column '{column}': empty" for column, cell in cells.items() if not cell]
        rows.append(Row(row.place, cells[text_column], cells[label_column]))
    refuse(problems, file)
    return rows


def questions(file: Path) -> list[Row]:
    """Lines as `NUM:dist How far is it ?`: of the label what is before the colon, then a blank, then the text.

    Raises:
        DataError: the file cannot be read, or has bad lines.
    """
    try:
        lines = read_bytes(file).decode("latin-1").split("\n")
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
