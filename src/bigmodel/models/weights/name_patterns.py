"""Parameters and modules chosen by patterns of their dotted names, as `blocks.*`."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase


def match_names(patterns: str | Sequence[str] | None, names: Collection[str], what: str) -> list[str]:
    """The names that one of the patterns matches, in their own order; none where there is no pattern.

    Raises:
        ValueError: a pattern matches no name; `what` they are is said, and what may have been meant.
    """
    wanted = [patterns] if isinstance(patterns, str) else patterns or ()
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"'{pattern}' matches no {what}; {_meant(pattern, names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in wanted)]


def _meant(pattern: str, names: Collection[str]) -> str:
    parts = [name.split(".") for name in names]
    folders = dict.fromkeys(".".join([*part[:depth], "*"]) for part in parts for depth in range(1, len(part)))
    close = difflib.get_close_matches(pattern, [*folders, *names], n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"they are {', '.join([*names][:6])}{' ...' if len(names) > 6 else ''}" if names else "there is none"
