"""Quote overrides for Hydra's grammar and commands for a shell, so that they can be copied as printed.

Hydra reads `key=value`, its own quotes, lists, mappings, functions and `${...}`; unquoted, it reads ASCII letters only,
and it reads no quoted keys of a mapping.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_PLAIN = re.compile(r"[\w./+@%-]+", re.ASCII)
_QUOTE_OR_END = re.compile(r"(\\*)('|\Z)")
_REFERENCE = re.compile(r"(\\*)\$\{")
_TYPED = re.compile(r"null|true|false|[+-]?(nan|inf|[\d_.]+(e[+-]?[\d_]+)?)|", re.IGNORECASE)
_SPECIAL = re.compile(r"([\\()\[\]{}:=, \t])")
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")
_MARKS = frozenset(";|,^&!#~")  # alone, no value that Hydra reads
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def is_typed(text: str) -> bool:
    """Return whether an unquoted text is read as something else: a number, a truth value, null or nothing."""
    return _TYPED.fullmatch(text) is not None


def quote(text: str) -> str:
    """Quote a text for Hydra; a `${...}` in it stays an interpolation."""

    def escape(match: re.Match[str]) -> str:
        return match[1] * 2 + ("\\'" if match[2] else "")

    return f"'{_QUOTE_OR_END.sub(escape, text)}'"


def escape_interpolation(text: str) -> str:
    """Escape `${` in a text, which OmegaConf would take for an interpolation."""
    return _REFERENCE.sub(lambda match: match[1] * 2 + "\\${", text)


def path_override(key: str, path: object) -> str:
    """Return `key=path`, quoted so that Hydra reads it back whatever the path is called."""
    text = str(path)
    if _PLAIN.fullmatch(text) and not is_typed(text):
        return f"{key}={text}"
    return f"{key}={quote(escape_interpolation('./???' if text == '???' else text))}"


def shell_command(*words: str) -> str:
    """Join words to a command line that a shell splits into the same words."""
    return shlex.join(words)


def resume_command(directory: object, trust: Sequence[str] = (), *more: str, multirun: bool = False) -> str:
    """Return the command that resumes a run or a sweep; `resume=` takes a path as it is."""
    return shell_command("bigmodel-train", *["-m"] * multirun, f"resume={directory}", *trust_override(trust), *more)


def trust_override(trust: Sequence[str]) -> list[str]:
    """Return `trust=[...]` as a list of one override; empty where nothing is trusted."""
    return [f"trust=[{','.join(trust)}]"] if trust else []


def make_readable(word: str) -> str:
    """Return an override with what Hydra's grammar lacks put into its words: quotes around text of other scripts than
    ASCII and around a lone mark, none around the keys of a mapping. All else stays as it is.
    """
    key, sign, value = word.partition("=")
    if sign and value in _MARKS:  # a shell takes the quotes of separator=";" away
        return f"{key}={quote(value)}"
    if not sign or (value.isascii() and not re.search(r"[{,]\s*['\"]", value)):
        return word
    return f"{key}={_readable(value)}"


def _readable(value: str) -> str:
    parts: list[str] = []
    open_: list[str] = []
    place = 0
    while place < len(value):
        letter = value[place]
        if letter in _CLOSING:
            open_.append(letter)
        elif open_ and letter == _CLOSING[open_[-1]]:
            open_.pop()
        inside = open_[-1] if open_ else ""
        end = place if letter.isspace() else _token_end(value, place, inside)
        if end == place:  # a delimiter, or a space before a token
            parts.append(letter)
            place += 1
            continue
        token = value[place:end]
        is_key = inside == "{" and value[end:].lstrip().startswith(":")
        parts.append(_plain_key(token) if is_key else _quoted_chunk(token))
        place = end
    return "".join(parts)


def _token_end(value: str, start: int, inside: str) -> int:
    """Return the end of the quoted text or chunk that begins at `start`; `start` itself at a delimiter."""
    if value[start] in "'\"":
        end = start + 1
        while end < len(value) and value[end] != value[start]:
            end += 2 if value[end] == "\\" else 1
        return min(end + 1, len(value))
    delimiters = ",[]{}()" + {"{": ":", "(": "="}.get(inside, "")
    place = start
    while place < len(value):
        if value.startswith("${", place):
            place = value.find("}", place) + 1 or len(value)
        elif value[place] == "\\":
            place += 2
        elif value[place] in delimiters:
            break
        else:
            place += 1
    return min(place, len(value))


def _quoted_chunk(token: str) -> str:
    text = token.strip()
    if text.isascii() or text[0] in "'\"":
        return token
    before, after = token[: len(token) - len(token.lstrip())], token[len(token.rstrip()) :]
    return before + quote(_ESCAPED.sub(r"\1", text)) + after


def _plain_key(token: str) -> str:
    text = token.strip()
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0]:
        return token
    inside = text[1:-1]
    return _SPECIAL.sub(r"\\\1", inside) if inside.isascii() and inside else token
