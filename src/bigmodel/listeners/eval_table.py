"""The table of a run's epochs and evaluations, which grows by a row each; a narrow terminal gets fewer columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from bigmodel.formatting import columns_of, cut, escape_control, right

_GAP = "  "
_NARROWEST = 6  # of a column, so that it seldom has to grow later
_BOLD, _BEST, _PLAIN = "\x1b[1m", "\x1b[1;32m", "\x1b[0m"
_LEGEND = "(* best so far)"


@dataclass(frozen=True)
class Cell:
    """One value with the name and the unit of its column; of the columns, the one of the highest rank is left out
    first.
    """

    name: str
    text: str
    rank: int
    unit: str = ""


class EvalTable:
    """Makes the lines to print for each row: the row, and above it a header where that has changed or scrolled off."""

    def __init__(self) -> None:
        self._header: Sequence[str] = ()
        self._widths: dict[str, int] = {}
        self._rows_since = 0
        self._colored = not os.environ.get("NO_COLOR")

    def lines(self, cells: Sequence[Cell], best: bool, columns: int, rows: int) -> list[str]:
        """Return the lines of a row for a terminal of this size; with `best` it is marked."""
        longest = max(10, columns // 6)
        widths = {}
        for cell in cells:
            parts = (self._cut(cell.name, longest), self._cut(cell.unit, longest), cell.text)
            widths[cell.name] = max(self._widths.get(cell.name, _NARROWEST), *map(columns_of, parts))
        self._widths |= widths
        shown = list(cells)
        while len(shown) > 1 and sum(widths[cell.name] + len(_GAP) for cell in shown) + 2 > columns:
            shown.remove(max(shown, key=lambda cell: cell.rank))

        def joined(texts: Sequence[str], mark: str = " ") -> str:
            padded = (right(text, widths[cell.name]) for cell, text in zip(shown, texts, strict=True))
            return cut(mark + _GAP.join(("", *padded)), columns - 1, "...")

        header = [joined([self._cut(cell.name, longest) for cell in shown])]
        if any(cell.unit for cell in shown):
            header.append(joined([self._cut(cell.unit, longest) for cell in shown]))
        lines = []
        if header != self._header or self._rows_since >= rows - 4:
            legend = columns_of(header[0]) + len(_GAP) + len(_LEGEND) < columns
            titled = [header[0] + _GAP + _LEGEND, *header[1:]] if legend else [*header, f"{_GAP} {_LEGEND}"]
            lines += [self._colorize(line.rstrip(), _BOLD) for line in titled]
            self._header, self._rows_since = header, 0
        self._rows_since += 1
        row = joined([cell.text for cell in shown], "*" if best else " ")
        return [*lines, self._colorize(row, _BEST) if best else row]

    def _cut(self, text: str, columns: int) -> str:
        return cut(escape_control(text), columns, "...")

    def _colorize(self, line: str, code: str) -> str:
        return f"{code}{line}{_PLAIN}" if self._colored else line
