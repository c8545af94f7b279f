"""Numbers, names and other libraries' errors in words that fit on a line."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error and of its cause, if the cause says more."""
    lines = [str(error).strip().split("\n")[0]]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        lines.append(str(cause).strip().split("\n")[0])
    return clip(": ".join(dict.fromkeys(lines)), 300)


def clip(text: object, length: int = 100) -> str:
    if isinstance(text, int) and abs(text) >= 1 << 10_000:  # Python refuses to write it
        text = f"a number of {text.bit_length()} bits"
    shown = str(text).encode("unicode_escape").decode() if not str(text).isprintable() else str(text)
    return shown if len(shown) <= length else shown[: length - 3] + "..."


def amount(number: float, unit: str) -> str:
    """`1.23 GFLOP`: three digits with a decimal prefix."""
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}{unit}"


def printable(text: str) -> str:
    """A file's name may hold control codes, or bytes that are not text."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
