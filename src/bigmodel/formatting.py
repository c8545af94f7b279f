"""Format numbers, names and other libraries' errors for one line of text."""

from __future__ import annotations

import json
import re
import sys
import traceback
import unicodedata
from pathlib import Path
from typing import Any

_JOINERS = "\u200c\u200d"  # letters of Persian and Hindi, and emoji, are drawn wrong without them
_JSON_TEXT = re.compile(r"[^ -~]")


def first_line(error: BaseException) -> str:
    """Return the first line of an error and of its cause, if the cause says more."""
    lines = [str(error).strip().split("\n")[0] or type(error).__name__]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        lines.append(str(cause).strip().split("\n")[0])
    return truncate(": ".join(dict.fromkeys(lines)), 300)


def user_code_location(error: BaseException) -> str:
    """Return "FILE, line N" of the innermost traceback frame in user code, or "" if there is none."""
    own, where = {"bigmodel", "hydra_plugins", *sys.stdlib_module_names}, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        installed = {"site-packages", "dist-packages"} & set(file.parts)
        if package not in own and not installed and file.is_file():  # generated code has no file
            where = f"{file}, line {line}"
    return where


def truncate(text: object, length: int = 100) -> str:
    if isinstance(text, int) and abs(text) >= 1 << 10_000:  # Python refuses to write it
        text = f"a number of {text.bit_length()} bits"
    shown = escape_control(str(text))
    return shown if len(shown) <= length else shown[: length - 3] + "..."


def format_si(number: float, unit: str) -> str:
    """Format a number with three digits and a decimal prefix, as `1.23 GFLOP`."""
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}{unit}"


def format_count(count: float, noun: str, plural: str = "") -> str:
    """Format a count and its noun: `1 file`, `1,204 files`; `plural` where it is not the noun with an s."""
    shown = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{shown} {noun if count == 1 else plural or noun + 's'}"


def escape_control(text: str) -> str:
    """Escape each character that could move a cursor, end a line or is no text; leave all others."""
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    return character if _is_harmless(character) else character.encode("unicode_escape").decode()


def _is_harmless(character: str) -> bool:
    """Return whether a character can be printed: letters, signs, blanks of any width, and the joiners of letters."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def json_line(value: Any, encoding: str | None = None) -> str:
    """Return JSON on one line; letters that `encoding` has stay as they are, control characters are escaped."""
    line = json.dumps(value, ensure_ascii=False, default=str)
    try:
        line.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return json.dumps(value, default=str)
    return _JSON_TEXT.sub(lambda found: found[0] if _is_harmless(found[0]) else json.dumps(found[0])[1:-1], line)


def columns_of(text: str) -> int:
    """Count the terminal columns of a text: two for a wide character, none for a mark on the one before it."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def left(text: str, columns: int) -> str:
    """Pad a text on the right to this many columns."""
    return text + " " * (columns - columns_of(text))


def right(text: str, columns: int) -> str:
    """Pad a text on the left to this many columns."""
    return " " * (columns - columns_of(text)) + text


def cut(text: str, columns: int, sign: str = "…") -> str:
    """Cut a text to this many columns; an ellipsis marks the cut."""
    if columns_of(text) <= columns:
        return text
    room = columns - len(sign)
    while columns_of(text) > room:
        text = text[:-1]
    return text + sign
