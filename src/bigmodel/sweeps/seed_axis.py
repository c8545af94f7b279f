"""`seeds=5`: a run or a sweep with five seeds, from the config's own upward, as one more axis of the sweep."""

from __future__ import annotations

from collections.abc import Sequence

_MOST = 1000


def check_seeds(count: str, overrides: Sequence[str], resume: str | None) -> list[str]:
    """What is wrong with `seeds=<count>` on a command line, a line each."""
    if not (count.isascii() and count.isdecimal() and 2 <= int(count[:9]) <= _MOST):
        return [f"seeds: must be a number from 2 to {_MOST}, as seeds=5: how many seeds to train with"]
    if resume is not None:
        return ["seeds: cannot be added to what is resumed"]
    named = [text for text in overrides if _sets_seed(text) and not text.partition("=")[2].isdecimal()]
    return [f"seeds: {text} names the seeds already; leave one of the two out" for text in named]


def add_seed_override(count: int, overrides: Sequence[str], first: int) -> list[str]:
    """Overrides with the axis as the last and fastest one, in the place of a single `seed=3`."""
    axis = ",".join(str(first + number) for number in range(count))
    return [*(text for text in overrides if not _sets_seed(text)), f"seed={axis}"]


def _sets_seed(text: str) -> bool:
    return text.lstrip("+").partition("=")[0] == "seed"
