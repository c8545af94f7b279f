"""Seal a written config with a last line that is a hash of the lines above."""

from __future__ import annotations

import hashlib

_SEAL = "# SHA-256 of the lines above: "


def seal(text: str) -> str:
    """Append a last line with a hash of all other lines to a config's YAML."""
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(_SEAL))
    return f"{body}{_SEAL}{hashlib.sha256(body.encode()).hexdigest()}\n"


def is_intact(text: str) -> bool | None:
    """Return whether a config is as `seal` wrote it; None where it has no seal, as in older versions."""
    seals = [line for line in text.splitlines() if line.startswith(_SEAL)]
    return seal(text) == text if seals else None
