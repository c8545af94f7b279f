"""Split a command line as a shell does, without expanding anything, and quote a word for its end."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNSAFE = re.compile(r"([^\w./=:,@%+~-])")
_IN_DOUBLE = re.compile(r'(["$`\\])')


@dataclass(frozen=True)
class TypedLine:
    """The finished words of a command line, the word at its end, and the quote that is open there."""

    words: tuple[str, ...]
    current: str
    quote: str


def split_line(line: str) -> TypedLine:
    """Split a command line up to the cursor. Variables, globs and substitutions stay as they were typed."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    letters = iter(line)
    for letter in letters:
        if letter == "\\" and quote != "'":
            following = next(letters, "")
            kept = "\\" if quote and following not in '"$`\\' else ""
            word = (word or "") + kept + following
        elif letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote, word = letter, word or ""
        elif not quote and letter.isspace():
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + letter
    return TypedLine(tuple(words), word or "", quote)


def quote_for(text: str, quote: str) -> str | None:
    """Write a text so that a shell reads it as it is, inside an open quote or without; None where it cannot be."""
    if quote == "'":
        return None if "'" in text else text
    if quote == '"':
        return None if "!" in text else _IN_DOUBLE.sub(r"\\\1", text)
    return _UNSAFE.sub(r"\\\1", text)
