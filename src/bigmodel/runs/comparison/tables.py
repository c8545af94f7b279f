"""Plain text tables, no wider than the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from bigmodel.formatting import columns_of, cut, left, right, truncate

_GAP = "  "
_LEAST = 6  # letters that a shortened column keeps


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is none, and lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def format_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, optional: Sequence[str] = ()
) -> list[str]:
    """Lines with aligned columns, numbers to the right.

    Where `width` is too small, the columns named in `optional` go first, one by one; then the widest are shortened,
    the last, which may hold paths to be copied, after all others.
    """
    columns = [[truncate(cell, 200) for cell in column] for column in zip(head, *rows, strict=True)]
    for name in optional:
        if width is None or _total(columns) <= width:
            break
        columns = [column for column in columns if column[0] != name]
    while width is not None and _total(columns) > width:
        widest = max(columns[:-1], key=_widest, default=columns[-1])
        if _widest(widest) <= _LEAST:
            widest = columns[-1]
        size = _widest(widest)
        if size <= _LEAST:
            break
        widest[:] = [cut(cell, size - 1) for cell in widest]
    lines = (_GAP.join(cells).rstrip() for cells in zip(*map(_padded, columns), strict=True))
    return [line if width is None else cut(line, width, "") for line in lines]


def _total(columns: Sequence[Sequence[str]]) -> int:
    return sum(map(_widest, columns)) + len(_GAP) * (len(columns) - 1)


def _widest(column: Sequence[str]) -> int:
    return max(map(columns_of, column))


def _padded(column: Sequence[str]) -> list[str]:
    size = _widest(column)
    numbers = all(cell == "-" or cell[:1] in "-.0123456789" for cell in column[1:])
    return [right(cell, size) if numbers else left(cell, size) for cell in column]
