"""Derive keys of random numbers as pure functions of (seed, purpose, step)."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: int | str) -> int:
    """Return a 63-bit key that differs for every seed and purpose, equal on every machine and Python version."""
    text = "/".join(map(str, (seed, *purpose))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
