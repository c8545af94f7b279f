"""Parse JSON where Python's own reader takes what others cannot: keys that are there twice, halves of characters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def parse_json(text: str) -> Any:
    r"""Parse JSON.

    Raises:
        ValueError: it is none, has a key twice in one object, or half of a character, as an emoji that was cut
            between `\ud83d` and `\ude00`.
    """
    found = json.loads(text, object_pairs_hook=_unique_keys)
    if "\\u" in text:
        written = json.dumps(found, ensure_ascii=False)
        try:
            written.encode()
        except UnicodeEncodeError as error:
            half = written[error.start].encode("unicode_escape").decode()
            raise ValueError(f"{half} is half of a character; take it out, or add the other half") from None
    return found


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of a key that is there twice, Python would take the last value without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:number]))
        raise ValueError(f"the key '{twice}' is there twice in one object")
    return found
