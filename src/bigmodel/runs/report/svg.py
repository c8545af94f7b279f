"""Turn matplotlib figures into SVG that stands inside a page: colors follow the page's theme, points tell their values.

matplotlib draws in the placeholder colors below; they become CSS variables, which are light or dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from bigmodel.runs.report.html import escape

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#05050{index}" for index in range(8))
HOVER = "hover"  # begins the gid of a line whose markers get tooltips
_VARIABLES = {
    **{INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", "#000000": "ink", "#ffffff": "paper"},
    **{color: f"c{index}" for index, color in enumerate(SERIES)},
}
_COLOR = re.compile("|".join(_VARIABLES))
_ID = re.compile(r'(\bid="|url\(#|href="#)')
_MARKER = re.compile(r"(<use [^>]*)/>")
_STYLE = {
    "svg.fonttype": "none",  # text stays text: the page's font draws it, in any script
    "svg.hashsalt": "bigmodel",  # equal figures give equal text
    "font.size": 8,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify": True,
}


class SvgWriter:
    """Draws one page's figures; ids are different in each, because all of them lie in one document."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = count()

    def style(self) -> Any:
        """Return a context in which figures are created and drawn."""
        import matplotlib
        from matplotlib.rcsetup import cycler

        return matplotlib.rc_context({**_STYLE, "axes.prop_cycle": cycler("color", SERIES)})

    def to_svg(self, figure: Any, label: str, tips: Sequence[Sequence[str]] = ()) -> str:
        """Return a figure as an `<svg>` element; `label` is for readers who do not see it.

        `tips[i]` are the texts of the markers of the line with gid `hover-i`. Its markers must all be visible.
        """
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        stream = io.StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
        text = stream.getvalue()
        body = text[text.index("<g id=") : text.rindex("</svg>")]
        for number, texts in enumerate(tips):
            body = _add_tips(body, f"{HOVER}-{number}", texts)
        body = _ID.sub(rf"\g<1>f{next(self._numbers)}-", body.replace("xlink:href", "href"))
        body = _COLOR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", body)
        width, height = (72 * inches for inches in figure.get_size_inches())
        head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
        return f"{head}{body}</svg>"


def _add_tips(body: str, gid: str, texts: Sequence[str]) -> str:
    """Give each marker of one line its text, which browsers show where the pointer rests."""
    begin = body.find(f'<g id="{gid}">')
    end = body.find('<g id="', begin + 1)
    if begin < 0:
        return body
    end = len(body) if end < 0 else end
    remaining = iter(texts)
    part = _MARKER.sub(lambda found: f"{found[1]}><title>{escape(next(remaining, ''))}</title></use>", body[begin:end])
    return body[:begin] + part + body[end:]
