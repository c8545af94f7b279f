"""Losses for classification: each returns the mean over the batch of a per-sample loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.ranges import Fraction

__all__ = ["CrossEntropy", "MeanSquaredError"]


class CrossEntropy(nn.Module):
    """Softmax cross-entropy with label smoothing (Szegedy et al. 2016). Targets: class numbers (N) or odds (N, C).

    `label_smoothing` may be set to a scalar tensor: jobs that are trained as one have a value each.
    """

    label_smoothing: float | Tensor

    def __init__(self, label_smoothing: Fraction = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits_NC: Tensor, target: Tensor) -> Tensor:
        if isinstance(self.label_smoothing, Tensor):  # the loss is affine in it
            hard, even = (F.cross_entropy(logits_NC, target, label_smoothing=end) for end in (0.0, 1.0))
            return hard + self.label_smoothing * (even - hard)
        return F.cross_entropy(logits_NC, target, label_smoothing=self.label_smoothing)


class MeanSquaredError(nn.Module):
    """Squared distance to the one-hot target (Hui & Belkin 2021), or to a target of the outputs' own shape."""

    def forward(self, outputs_NC: Tensor, target: Tensor) -> Tensor:
        if target.shape != outputs_NC.shape:
            target = F.one_hot(target.to(torch.int64), outputs_NC.shape[1])
        return F.mse_loss(outputs_NC, target.to(outputs_NC.dtype))
