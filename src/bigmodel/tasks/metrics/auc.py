"""Area under the ROC curve of two classes, from a histogram of scores for each class: sums that add up over batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 4096  # evenly spread over z / (1 + |z|) for logits z, so that most hold something


def histograms(logits_N: Tensor, classes_N: Tensor) -> Tensor:
    """Count samples of class 0, then of class 1, by the bin of their logit of class 1: int64 (2 * BINS,)."""
    logits_N = logits_N.double()
    squashed_N = (logits_N / (1 + logits_N.abs()) + 1) / 2
    bins_N = (squashed_N * BINS).long().clamp(0, BINS - 1)
    return torch.bincount(classes_N * BINS + bins_N, minlength=2 * BINS)


def auc_from_histograms(counts: Sequence[float]) -> float:
    """Return the probability that a sample of class 1 has a higher score than one of class 0; 0.5 if a class has no
    samples.

    Two samples in one bin count half, so the error is at most half the fraction of such pairs, of the order of 1e-4.
    """
    below, pairs = 0.0, 0.0
    for negative, positive in zip(counts[:BINS], counts[BINS:], strict=True):
        pairs += positive * (below + negative / 2)
        below += negative
    positives = sum(counts[BINS:])
    return pairs / (below * positives) if below and positives else 0.5
