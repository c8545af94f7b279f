"""Escape texts and arrange them as tables. Every text of a run passes through `escape`."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from bigmodel.formatting import escape_control

_LONGEST = 300  # letters of a cell
_MOST_ROWS = 50


def escape(text: object) -> str:
    """Return a text for HTML, also inside quotes; control characters are made visible, and long texts cut."""
    shown = str(text)
    return html.escape(escape_control(shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"))


def facts_table(title: str, facts: Mapping[str, object]) -> str:
    """Return a title with names and their values below it."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<div><b>{escape(title)}</b><table><tbody>{rows}</tbody></table></div>"


def rows_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table of the first rows, and how many more there are."""
    top = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows[:_MOST_ROWS]
    )
    more = f"<p>… and {len(rows) - _MOST_ROWS} more</p>" if len(rows) > _MOST_ROWS else ""
    return f"<div><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{more}</div>"
