"""Other libraries' errors and values, cut down to what fits on a line."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error and of its cause, if the cause says more."""
    lines = [str(error).strip().split("\n")[0]]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        lines.append(str(cause).strip().split("\n")[0])
    return clip(": ".join(dict.fromkeys(lines)), 300)


def clip(text: object, length: int = 100) -> str:
    shown = str(text).encode("unicode_escape").decode() if not str(text).isprintable() else str(text)
    return shown if len(shown) <= length else shown[: length - 3] + "..."
