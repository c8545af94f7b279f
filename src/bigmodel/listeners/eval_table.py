"""The table of a run's epochs and evaluations, which grows by a row each; a narrow terminal gets fewer columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from bigmodel.formatting import columns_of, cut, escape_control, right

_GAP = "  "
_LONGEST = 12  # of a name or a unit, where the terminal has no more than six times that
_BOLD, _BEST, _PLAIN = "\x1b[1m", "\x1b[1;32m", "\x1b[0m"
_LEGEND = "* best so far"


@dataclass(frozen=True)
class Cell:
    """One value with the name and the unit of its column; of the columns, the one of the highest rank is left out
    first.
    """

    name: str
    text: str
    rank: int
    unit: str = ""
    narrowest: int = 5  # width of the column, so that it seldom has to grow later


class EvalTable:
    """Makes the lines to print for each row: the row, and above it a header where that has changed or scrolled off."""

    def __init__(self) -> None:
        self._header = ("", "")
        self._widths: dict[str, int] = {}
        self._rows_since = 0
        self._colored = not os.environ.get("NO_COLOR")

    def lines(self, cells: Sequence[Cell], best: bool | None, columns: int, rows: int) -> list[str]:
        """Return the lines of a row for a terminal of this size. The best is marked; it is None where nothing is
        evaluated.
        """
        longest = max(_LONGEST, columns // 6)
        widths = {}
        for cell in cells:
            parts = (self._cut(cell.name, longest), self._cut(cell.unit, longest), cell.text)
            widths[cell.name] = max(self._widths.get(cell.name, cell.narrowest), *map(columns_of, parts))
        self._widths |= widths
        shown = list(cells)
        while len(shown) > 1 and sum(widths[cell.name] + len(_GAP) for cell in shown) + 2 > columns:
            shown.remove(max(shown, key=lambda cell: cell.rank))

        def join_columns(texts: Sequence[str], mark: str = " ") -> str:
            padded = (right(text, widths[cell.name]) for cell, text in zip(shown, texts, strict=True))
            return cut(mark + _GAP.join(("", *padded)), columns - 1, "...")

        names, units = (
            join_columns([self._cut(text, longest) for text in texts])
            for texts in ([cell.name for cell in shown], [cell.unit for cell in shown])
        )
        lines = []
        if (names, units) != self._header or self._rows_since >= rows - 4:
            lines += [self._colorize(line, _BOLD) for line in _with_legend(names, units, best is not None)]
            self._header = (names, units)
            self._rows_since = 0
        self._rows_since += 1
        row = join_columns([cell.text for cell in shown], "*" if best else " ")
        return [*lines, self._colorize(row, _BEST) if best else row]

    def _cut(self, text: str, columns: int) -> str:
        return cut(escape_control(text), columns, "...")

    def _colorize(self, line: str, code: str) -> str:
        return f"{code}{line}{_PLAIN}" if self._colored else line


def _with_legend(names: str, units: str, marks: bool) -> list[str]:
    """Put the legend before the units, where nothing has any; else on a line of its own."""
    if marks and not units[: len(_LEGEND)].strip():
        units, marks = _LEGEND + units[len(_LEGEND) :], False
    return [line for line in (names, units.rstrip(), _LEGEND if marks else "") if line]
