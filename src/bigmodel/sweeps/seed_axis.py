"""`seeds=5`: add five seeds, from the config's own upward, as one more axis of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_SEEDS = 1000


def check_seeds(count: str, overrides: Sequence[str], resume: str | None) -> list[str]:
    """Return what is wrong with `seeds=<count>` on a command line, a line for each problem."""
    if not (count.isascii() and count.isdecimal() and 2 <= int(count[:9]) <= _MAX_SEEDS):
        return [f"seeds: must be a number from 2 to {_MAX_SEEDS}, as seeds=5: how many seeds to train with"]
    if resume is not None:
        return ["seeds: cannot be added to what is resumed"]
    conflicts = [text for text in overrides if _sets_seed(text) and not text.partition("=")[2].isdecimal()]
    return [f"seeds: conflicts with {text}; remove one of the two" for text in conflicts]


def add_seed_override(num_seeds: int, overrides: Sequence[str], first: int) -> list[str]:
    """Return the overrides with the axis as the last, fastest one, instead of a single `seed=3`."""
    axis = ",".join(str(first + index) for index in range(num_seeds))
    return [*(text for text in overrides if not _sets_seed(text)), f"seed={axis}"]


def _sets_seed(text: str) -> bool:
    return text.lstrip("+").partition("=")[0] == "seed"
