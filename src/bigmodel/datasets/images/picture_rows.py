"""The rows of a table of pictures: each has the path of a picture, its targets, and its split."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from bigmodel.datasets.files.class_folders import describe_broken
from bigmodel.datasets.files.split_names import SPLITS, split_named
from bigmodel.datasets.files.table_files import Row, Table, TableFormat, raise_row_errors, read_rows
from bigmodel.datasets.images.picture_check import find_broken
from bigmodel.errors import DataError
from bigmodel.formatting import format_count, truncate


@dataclass(frozen=True)
class PictureRow:
    """One picture; `cells` are those of the label columns, `location` is its file and line."""

    location: str
    path: str
    cells: Sequence[str]
    split: str


@dataclass(frozen=True)
class PictureTable:
    """A table of pictures. Paths are relative to `folder`; with `several` labels a cell may be empty."""

    file: Path
    folder: Path
    image_column: str
    label_columns: Sequence[str]
    split_column: str | None
    several: bool
    encoding: str | None

    def rows(self, broken: str) -> tuple[list[PictureRow], list[str]]:
        """Return the rows, and notes about the columns.

        Raises:
            DataError: one is bad or, unless `broken` is "skip", has no picture.
        """
        columns = (self.image_column, *self.label_columns, self.split_column)
        wanted = [column for column in columns if column is not None]
        problems: list[str] = []
        listed: list[PictureRow] = []
        table = read_rows(self.file, TableFormat(strip=" \t", encoding=self.encoding), wanted)
        for row in table:
            found = self._picture_row(row, wanted)
            if isinstance(found, PictureRow):
                listed.append(found)
            else:
                problems += found
        if broken == "refuse":
            problems += [self._missing(row.location, row.path) for row in listed if not os.path.isfile(row.path)]
        raise_row_errors(problems, self.file)
        return listed, [*table.notes, *_unused(table, wanted)]

    def _picture_row(self, row: Row, wanted: Sequence[str]) -> PictureRow | list[str]:
        """Return a row of the table, or what is wrong with it."""
        try:
            cells = {column: row.text(column) for column in wanted}
        except DataError as error:
            return [*error.lines]
        path = os.path.join(self.folder, cells[self.image_column])
        split = "train" if self.split_column is None else split_named(cells[self.split_column])
        may_be_empty = self.label_columns if self.several else ()
        empty = next((name for name, cell in cells.items() if not cell and name not in may_be_empty), None)
        if empty is not None:
            return [f"{row.location}: column '{empty}': empty"]
        if split not in SPLITS:
            given = cells[self.split_column or ""]
            return [f"{row.location}: column '{self.split_column}': '{given}' is not one of {', '.join(SPLITS)}"]
        if "\0" in path:
            return [self._missing(row.location, path)]
        return PictureRow(row.location, path, [cells[column] for column in self.label_columns], split)

    def _missing(self, location: str, path: str) -> str:
        return f"{location}: column '{self.image_column}': no file {path}"


def _unused(table: Table, wanted: Sequence[str]) -> list[str]:
    """Note the columns that are not read, with a warning of one whose values name splits."""
    others = [name for name in table.columns if name not in wanted]
    notes = [f"columns not used: {truncate(', '.join(others), 200)}"] if others else []
    for name in others:
        splits = {split_named(cell) for cell in set(table.texts(name))}
        if len(splits) > 1 and splits <= {*SPLITS}:
            notes.append(f"warning: column '{name}' names splits and is not used; set dataset.split_column={name}")
    return notes


def rows_without_broken(rows: list[PictureRow], broken: str) -> tuple[list[PictureRow], Set[str], list[str]]:
    """Return the rows of readable pictures, paths of broken ones, and lines about those.

    Raises:
        DataError: pictures are broken, and `broken` is "refuse".
    """
    problems = find_broken(list(dict.fromkeys(row.path for row in rows)), decode=broken == "skip")
    if not problems:
        return rows, set(), []
    places = {row.path: row.location for row in reversed(rows)}
    lines = describe_broken({f"{places[path]}: {path}": problem for path, problem in problems.items()}, "picture")
    if broken == "refuse":
        count = format_count(len(problems), "broken picture")
        raise DataError(
            *lines, f"{count}; mend or remove {'it' if len(problems) == 1 else 'them'}, or set dataset.broken=skip"
        )
    kept = [row for row in rows if row.path not in problems]
    count = format_count(len(rows) - len(kept), "row with a broken picture", "rows with broken pictures")
    notes = [f"warning: {count} skipped", *(f"skipped: {line}" for line in lines)]
    return kept, problems.keys(), notes
