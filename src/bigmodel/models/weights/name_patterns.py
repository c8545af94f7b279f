"""Select parameters and modules by patterns of their dotted names, as `blocks.*`."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase


def match_names(patterns: str | Sequence[str] | None, names: Collection[str], what: str) -> list[str]:
    """Return the names that match one of the patterns, in their own order; none without a pattern.

    Raises:
        ValueError: a pattern matches no name. The message calls the names `what` and suggests the nearest.
    """
    globs = [patterns] if isinstance(patterns, str) else patterns or ()
    for pattern in globs:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"'{pattern}' matches no {what}; {_suggest_pattern(pattern, names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in globs)]


def _suggest_pattern(pattern: str, names: Collection[str]) -> str:
    parts = [name.split(".") for name in names]
    prefixes = dict.fromkeys(".".join([*part[:depth], "*"]) for part in parts for depth in range(1, len(part)))
    close = difflib.get_close_matches(pattern, [*prefixes, *names], n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choices: {', '.join([*names][:6])}{' ...' if len(names) > 6 else ''}" if names else "the model has none"
