"""Escape texts and arrange them as tables. Every text of a run passes through `escape`."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from bigmodel.formatting import escape_control

_MOST_ROWS = 50


def escape(text: object, longest: int = 300) -> str:
    """Return a text for HTML, also inside quotes: at most `longest` letters, control characters made visible."""
    shown = str(text)
    kept = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    return html.escape("\n".join(map(escape_control, kept.split("\n"))))


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
