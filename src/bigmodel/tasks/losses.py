"""Losses for classification: each returns the mean over the batch of a per-sample loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import Fraction, NonNegative
from bigmodel.formatting import format_count

__all__ = ["CrossEntropy", "MeanSquaredError", "balanced"]


class CrossEntropy(nn.Module):
    """Softmax cross-entropy with label smoothing (Szegedy et al. 2016). Targets: class indices (N,) or probabilities
    (N, C).

    `weight` is a factor of the loss for each class, in the order of the classes. The loss stays a mean over samples, so
    it does not depend on how samples fall into batches. "balanced" stands for factors that make classes count alike and
    have mean 1 over the training samples; a run replaces it by the numbers before it builds the loss.
    """

    def __init__(
        self, label_smoothing: Fraction = 0.0, weight: Literal["balanced"] | Sequence[NonNegative] | None = None
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self._counts_missing = isinstance(weight, str)
        given = None if isinstance(weight, str) else weight
        self._weight_C = None if given is None else torch.tensor(given, dtype=torch.float32)

    def forward(self, logits_NC: Tensor, target: Tensor) -> Tensor:
        if self._counts_missing:
            raise ValueError("weight: balanced needs the counts of the classes; give a number for each")
        if self._weight_C is None:
            return F.cross_entropy(logits_NC, target, label_smoothing=self.label_smoothing)
        if len(self._weight_C) != logits_NC.shape[1]:
            raise ValueError(
                f"weight: has {format_count(len(self._weight_C), 'number')}, for {logits_NC.shape[1]} classes"
            )
        if self._weight_C.device != logits_NC.device:
            self._weight_C = self._weight_C.to(logits_NC.device)
        weight_N = self._weight_C[target] if target.ndim == 1 else target.float() @ self._weight_C
        losses_N = F.cross_entropy(logits_NC, target, label_smoothing=self.label_smoothing, reduction="none")
        return (weight_N * losses_N).mean()


def balanced(counts_C: Tensor) -> list[float]:
    """Return class weights for classes of these sizes: each class counts alike, and the mean over the samples is 1."""
    present = counts_C > 0
    weights_C = counts_C.sum() / (present.sum() * counts_C.double().clamp(min=1))
    return torch.where(present, weights_C, 0.0).tolist()


class MeanSquaredError(nn.Module):
    """Squared distance to the one-hot target (Hui & Belkin 2021), or to a target of the outputs' own shape."""

    def forward(self, outputs_NC: Tensor, target: Tensor) -> Tensor:
        if target.shape != outputs_NC.shape:
            target = F.one_hot(target.to(torch.int64), outputs_NC.shape[1])
        return F.mse_loss(outputs_NC, target.to(outputs_NC.dtype))
