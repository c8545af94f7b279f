"""Abilities of the terminal on stdout: drawing in place, characters beyond ASCII, and its size."""

from __future__ import annotations

import contextlib
import os
import sys

_NARROWEST = 10  # a narrower terminal wraps what is drawn
_WIDE_SIGNS = ("zh", "ja", "ko")  # languages in which terminals may draw a sign of a bar over two columns


def is_terminal() -> bool:
    """Return whether stdout is an open terminal."""
    try:
        return sys.stdout.isatty() and sys.stdout.fileno() >= 0
    except (OSError, ValueError):  # closed, or a stand-in without a file
        return False


def draws_in_place() -> bool:
    """Return whether stdout is a terminal that can redraw a line; a notebook's `!` cell cannot."""
    is_notebook = "JPY_PARENT_PID" in os.environ  # set by Jupyter for its kernels
    return is_terminal() and not is_notebook and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def draws_unicode() -> bool:
    """Return whether signs beyond ASCII are drawn as such, each in one column, by the encoding and the locale."""
    names = [os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    if names[1] == "C.UTF-8":  # Python itself sets this where the locale is C
        del names[1]
    locale = next(filter(None, names), "C").lower()
    return sys.stdout.encoding.lower() == "utf-8" and "utf" in locale and not locale.startswith(_WIDE_SIGNS)


def terminal_size() -> tuple[int, int]:
    """Return columns and rows of the terminal; of an unknown one, 80 and 24."""
    found = (0, 0)
    with contextlib.suppress(OSError, ValueError):
        found = os.get_terminal_size(sys.stdout.fileno())
    columns, rows = (
        int(text) if (text := os.environ.get(name, "")).isdecimal() else 0 for name in ("COLUMNS", "LINES")
    )
    return max(_NARROWEST, columns or found[0] or 80), rows or found[1] or 24
