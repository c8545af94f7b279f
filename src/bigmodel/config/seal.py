"""A last line of a written config that vouches for the lines above."""

from __future__ import annotations

import hashlib

_SEAL = "# SHA-256 of the lines above: "


def seal(text: str) -> str:
    """A config as YAML with a last line that vouches for the lines above."""
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(_SEAL))
    return f"{body}{_SEAL}{hashlib.sha256(body.encode()).hexdigest()}\n"


def is_intact(text: str) -> bool | None:
    """Whether a config is as `sealed` wrote it; None where it has no such line, as those of older versions."""
    seals = [line for line in text.splitlines() if line.startswith(_SEAL)]
    return seal(text) == text if seals else None
