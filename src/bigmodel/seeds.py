"""Every random number of a run is a pure function of (seed, purpose, step); this derives the key."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: int | str) -> int:
    """A 63-bit key that differs for every seed and purpose, equal on every machine and Python version."""
    text = "/".join(map(str, (seed, *purpose))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
