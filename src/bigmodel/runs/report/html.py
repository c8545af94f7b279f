"""Escape and assemble HTML. Every text of a run passes through `escape`, which is the only way into a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bigmodel.runs.display.html import escape as shorter_escape

NUMBER = "n"  # class of a cell that holds a number
_PIXELS_PER_INCH = 96  # of a drawing: its letters of 8 points are 11 pixels high, as in the other charts


def escape(text: object, longest: int = 2000) -> str:
    """Return a text for HTML, as in a notebook, but longer: a page has room."""
    return shorter_escape(text, longest)


def section(title: str, *parts: str, note: str = "") -> str:
    """Return a section of a page; empty if it has no parts. `title` and `note` are texts, `parts` are HTML."""
    body = "".join(parts)
    if not body and not note:
        return ""
    name = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>{said}{body}</section>\n'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", html_cells: bool = False) -> str:
    """Return a table that scrolls sideways on a narrow screen. Cells are texts, or HTML with `html_cells`.

    A column whose cells all begin like numbers is aligned to the right.
    """
    cells = [[cell if html_cells else escape(cell) for cell in row] for row in rows]
    columns = range(len(head))
    right = [all(row[i][:1] in "-–0123456789." for row in cells if row[i]) for i in columns]
    marks = [f' class="{NUMBER}"' if right[i] and cells else "" for i in columns]
    top = "".join(f'<th scope="col"{marks[i]}>{escape(head[i])}</th>' for i in columns)
    body = "".join("<tr>" + "".join(f"<td{marks[i]}>{row[i]}</td>" for i in columns) + "</tr>" for row in cells)
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    label = escape(caption or ", ".join(head), 100)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table>{named}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def scroll(wide: str, label: str, inches: float) -> str:
    """Return a drawing of this width as large as its letters read well: a narrower screen scrolls sideways."""
    head = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
    return f'{head}<div style="width:{inches * _PIXELS_PER_INCH:.0f}px">{wide}</div></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names with their values as a two-column table."""
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in pairs)
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>' if rows else ""


def details(summary: str, body: str) -> str:
    """Return a part that is closed until it is wanted."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def figure(drawing: str, title: str, legend: Sequence[tuple[str, str]] = (), note: str = "") -> str:
    """Return a chart with its title and a legend of (CSS variable, name) pairs."""
    keys = "".join(f'<li><i style="background:var(--{color})"></i>{escape(name)}</li>' for color, name in legend)
    listed = f'<ul class="legend">{keys}</ul>' if keys else ""
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing}{listed}{said}</figure>"


def beside(*parts: str) -> str:
    """Return parts side by side where the screen is wide enough, else one below the other."""
    shown = "".join(parts)
    return f'<div class="beside">{shown}</div>' if shown else ""


def grid(*figures: str) -> str:
    """Return figures side by side, as many as the screen has room for."""
    shown = "".join(figures)
    return f'<div class="grid">{shown}</div>' if shown else ""
