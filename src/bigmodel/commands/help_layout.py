"""Two columns and paragraphs, as wide as the terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from bigmodel.formatting import columns_of, cut, escape_control, left

_NARROWEST, _WIDEST = 40, 120
_WIDEST_LEFT = 30
_TWO_COLUMNS = re.compile(r"( +\S.*? {2,})(\S.*)")
_COMMAND = "  bigmodel-"  # begins an example, which is not broken


def two_columns(rows: Iterable[tuple[str, str]], columns: int, *, one_line: bool = False) -> list[str]:
    """Lay out words and their meanings. With `one_line`, what does not fit is cut, after a clause where it can be."""
    pairs = [(escape_control(word), escape_control(meaning)) for word, meaning in rows]
    columns = min(max(columns, _NARROWEST), _WIDEST)
    begin = 4 + max((columns_of(word) for word, _ in pairs if columns_of(word) <= _WIDEST_LEFT), default=_WIDEST_LEFT)
    lines = []
    for word, meaning in pairs:
        room = columns - begin
        if columns_of(word) + 4 > begin:
            lines.append(f"  {cut(word, columns - 2)}")
            word = ""
        texts = [_clauses(meaning, room)] if one_line else _wrap(meaning, room)
        lines += [f"  {left(word, begin - 4)}  {texts[0]}".rstrip()] if word or texts[0] else []
        lines += [" " * begin + text for text in texts[1:]]
    return lines


def reflow(text: str, columns: int) -> str:
    """Wrap the lines of a text that are too long: paragraphs, and the second column of what is indented."""
    columns = min(max(columns, _NARROWEST), _WIDEST)
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        if not any(line.startswith(" ") for line in paragraph.split("\n")):
            lines += _wrap(paragraph, columns)
        else:
            for line in paragraph.split("\n"):
                lines += _broken(line, columns)
        lines.append("")
    return "\n".join(lines[:-1])


def _broken(line: str, columns: int) -> list[str]:
    if columns_of(line) <= columns or line.startswith(_COMMAND):
        return [line]
    match = _TWO_COLUMNS.fullmatch(line)
    begin, rest = (match[1], match[2]) if match else ("", line)
    first, *others = _wrap(rest, columns - len(begin))
    return [begin + first, *(" " * len(begin) + other for other in others)]


def _wrap(text: str, columns: int) -> list[str]:
    return textwrap.wrap(text, max(columns, 20), break_long_words=False, break_on_hyphens=False) or [""]


def _clauses(text: str, columns: int) -> str:
    """Return as many clauses of a comment as fit."""
    shown = text
    while columns_of(shown) > columns and "; " in shown:
        shown = shown.rpartition("; ")[0]
    return shown if columns_of(shown) <= columns and shown.count("(") == shown.count(")") else cut(text, columns)
