"""Pad sequences of unequal length into one tensor; the padding value is no valid one, so it tells the lengths.

Whole numbers are filled up with -1, others with NaN. A model sets them to something harmless before it computes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad(sequences: Sequence[Tensor], length: int | None = None) -> Tensor:
    """Stack sequences (T_n, ...) to (N, T, ...), padded to the longest, or cut and padded to `length`."""
    first = sequences[0]
    longest = max(map(len, sequences)) if length is None else length
    filling = float("nan") if first.is_floating_point() else -1
    out = torch.full((len(sequences), longest, *first.shape[1:]), filling, dtype=first.dtype)
    for number, sequence in enumerate(sequences):
        out[number, : len(sequence)] = sequence[:longest]
    return out


def valid_mask(padded_NT: Tensor) -> Tensor:
    """Return a mask bool (N, T) of the positions of a padded tensor (N, T, ...) that hold values."""
    there = ~padded_NT.isnan() if padded_NT.is_floating_point() else padded_NT >= 0
    return there.flatten(2).any(2) if there.ndim > 2 else there


def lengths(padded_NT: Tensor) -> Tensor:
    """Return the length of each padded sequence, int64 (N,)."""
    return valid_mask(padded_NT).sum(1)
