"""Plain text tables, no wider than the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from bigmodel.words import clip

_GAP = "  "
_LEAST = 6  # letters that a shortened column keeps


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is none, and lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, optional: Sequence[str] = ()
) -> list[str]:
    """Lines with aligned columns, numbers to the right.

    Where `width` is too small, the columns named in `optional` go first, one by one; then the widest are shortened,
    the last, which may hold paths to be copied, after all others.
    """
    columns = [[clip(cell, 200) for cell in column] for column in zip(head, *rows, strict=True)]
    for name in optional:
        if width is None or _width(columns) <= width:
            break
        columns = [column for column in columns if column[0] != name]
    while width is not None and _width(columns) > width:
        widest = max(columns[:-1], key=_longest, default=columns[-1])
        if _longest(widest) <= _LEAST:
            widest = columns[-1]
        size = _longest(widest)
        if size <= _LEAST:
            break
        widest[:] = [cell if len(cell) < size else cell[: size - 2] + "…" for cell in widest]
    padded = [_padded(column) for column in columns]
    return [_GAP.join(cells).rstrip()[:width] for cells in zip(*padded, strict=True)]


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(map(_longest, columns)) + len(_GAP) * (len(columns) - 1)


def _longest(column: Sequence[str]) -> int:
    return max(map(len, column))


def _padded(column: Sequence[str]) -> list[str]:
    width = _longest(column)
    right = all(cell == "-" or cell[:1] in "-.0123456789" for cell in column[1:])
    return [cell.rjust(width) if right else cell.ljust(width) for cell in column]
