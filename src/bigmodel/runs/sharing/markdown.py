"""Markdown of facts: text from files is escaped, so that it cannot become a link, a tag or a table's end."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bigmodel.formatting import escape_control, truncate

_SPECIAL = re.compile(r"([\\`*_\[\]<>#!|~&$@]|:(?=/)|(?<=[wW]{3})\.)")  # what makes marks, tags, tables or links
_LONGEST_CELL = 100


def escape(text: object, length: int = _LONGEST_CELL) -> str:
    """Return foreign text as one line of Markdown that shows the same letters; longer ones are cut."""
    return _SPECIAL.sub(r"\\\1", truncate(text, length))


def code(text: object) -> str:
    """Return foreign text as code, in which nothing is escaped; backticks and bars are replaced."""
    return f"`{truncate(text, _LONGEST_CELL).replace('`', chr(39)).replace('|', '/')}`"


def paragraph(text: str) -> str:
    """Return the author's own text: Markdown as it stands, without control characters."""
    return "\n".join(escape_control(line) for line in text.splitlines())


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric_from: int = 1) -> str:
    """Return a table of cells that are Markdown already; columns from `numeric_from` on are set to the right."""
    rule = [" --- " if column < numeric_from else " ---: " for column in range(len(head))]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
