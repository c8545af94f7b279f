"""The mean of a loss over samples or tokens, kept as two sums that add up over batches and ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def loss_sums(loss: Tensor, count: int | Tensor) -> dict[str, Tensor]:
    """Return `loss_denominator`, the number of samples or tokens that `loss` is the mean over, and the `loss` of all.

    A mean over none is NaN, and counts as 0.
    """
    if isinstance(count, int):
        return {"loss_denominator": torch.full_like(loss, count), "loss": loss.detach() * count}
    return {"loss_denominator": count, "loss": torch.where(count > 0, loss.detach() * count, 0)}


def mean_loss(sums: Mapping[str, Tensor]) -> float:
    """Return the mean loss from such sums; 0 over no samples."""
    return float(sums["loss"]) / max(1.0, float(sums["loss_denominator"]))
