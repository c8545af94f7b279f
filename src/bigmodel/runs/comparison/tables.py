"""Format plain text tables that fit the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from bigmodel.formatting import columns_of, cut, left, right, truncate

_GAP = "  "
_MIN_WIDTH = 6  # of a shortened column


def terminal_width() -> int | None:
    """Return the width of the terminal, or None if stdout is not one and lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def format_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, optional: Sequence[str] = ()
) -> list[str]:
    """Return lines with aligned columns, numbers to the right.

    If `width` is too small, the columns named in `optional` are dropped one by one. Then the widest columns are
    shortened; the last one, which may hold paths to copy, comes after all others.
    """
    columns = [[truncate(cell, 200) for cell in column] for column in zip(head, *rows, strict=True)]
    for name in optional:
        if width is None or _total(columns) <= width:
            break
        columns = [column for column in columns if column[0] != name]
    while width is not None and _total(columns) > width:
        widest = max(columns[:-1], key=_width, default=columns[-1])
        if _width(widest) <= _MIN_WIDTH:
            widest = columns[-1]
        size = _width(widest)
        if size <= _MIN_WIDTH:
            break
        widest[:] = [cut(cell, size - 1) for cell in widest]
    lines = (_GAP.join(cells).rstrip() for cells in zip(*map(_pad, columns), strict=True))
    return [line if width is None else cut(line, width, "") for line in lines]


def _total(columns: Sequence[Sequence[str]]) -> int:
    return sum(map(_width, columns)) + len(_GAP) * (len(columns) - 1)


def _width(column: Sequence[str]) -> int:
    return max(map(columns_of, column))


def _pad(column: Sequence[str]) -> list[str]:
    size = _width(column)
    numbers = all(cell == "-" or cell[:1] in "-.0123456789" for cell in column[1:])
    return [right(cell, size) if numbers else left(cell, size) for cell in column]
