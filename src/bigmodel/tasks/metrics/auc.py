"""The area under the ROC curve of two classes, from sums that add up over batches: a histogram of scores for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 4096  # of which most hold something: they are evenly spread over z / (1 + |z|) for logits z


def histograms(logits_N: Tensor, classes_N: Tensor) -> Tensor:
    """int64 (2 * BINS,): how many samples of class 0, then of class 1, have a logit of class 1 in each bin."""
    logits_N = logits_N.double()
    squashed_N = (logits_N / (1 + logits_N.abs()) + 1) / 2
    bins_N = (squashed_N * BINS).long().clamp(0, BINS - 1)
    return torch.bincount(classes_N * BINS + bins_N, minlength=2 * BINS)


def auc_from_histograms(counts: Sequence[float]) -> float:
    """The chance that of two samples that of class 1 has the higher score; 0.5 where one has no samples.

    Two in one bin count half, so it is off by at most half the share of such pairs: of the order of 1e-4.
    """
    below, pairs = 0.0, 0.0
    for negative, positive in zip(counts[:BINS], counts[BINS:], strict=True):
        pairs += positive * (below + negative / 2)
        below += negative
    positives = sum(counts[BINS:])
    return pairs / (below * positives) if below and positives else 0.5
