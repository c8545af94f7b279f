"""Multi-label classification: each label yes, no or unknown; loss and AUC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.interfaces import Batch
from bigmodel.metric_spec import standard_specs
from bigmodel.tasks.metrics import auc
from bigmodel.tasks.metrics.mean_loss import loss_sums, mean_loss

__all__ = ["MultiLabel"]


class MultiLabel:
    """Predict K labels: outputs (N, K) logits, targets (N, K) 1, 0, or NaN where unknown.

    The loss is the mean binary cross-entropy of the known labels, in nats. The AUC is the mean over the labels that
    have samples of both kinds.

    Raises:
        ValueError: the data has no labels.
    """

    metric_names = ("loss", "auc")
    metric_specs = standard_specs(*metric_names)

    def __init__(self, labels: Sequence[str] | None) -> None:
        if not labels:
            raise ValueError("labels: this data has no labels; set dataset.target_type=labels, or choose another task")

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        outputs_NK = model(batch.inputs)
        known_NK = ~batch.targets.isnan()
        losses_NK = F.binary_cross_entropy_with_logits(
            outputs_NK.float(), batch.targets.nan_to_num(), weight=known_NK.float(), reduction="none"
        )
        return losses_NK.sum() / known_NK.sum().clamp(min=1), outputs_NK

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return sums over known labels; `loss_denominator` counts them."""
        return loss_sums(loss, (~batch.targets.isnan()).sum().to(loss.dtype))

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": mean_loss(sums)}

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `train_sums`, and `scores` (K, 2 * BINS): each label's histograms of samples without and with it."""
        scores = []
        for logits_N, truth_N in zip(outputs.T, batch.targets.T, strict=True):
            known_N = ~truth_N.isnan()
            scores.append(auc.histograms(logits_N[known_N], truth_N[known_N].long()))
        return self.train_sums(loss, outputs, batch) | {"scores": torch.stack(scores)}

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return loss, auc (0.5 if no label has one), and per_label_auc, null for a label without samples of either
        kind.
        """
        areas = [
            auc.auc_from_histograms(row) if any(row[: auc.BINS]) and any(row[auc.BINS :]) else None
            for row in sums["scores"].tolist()
        ]
        known = [area for area in areas if area is not None]
        mean = sum(known) / len(known) if known else 0.5
        return {**self.train_metrics(sums), "auc": mean, "per_label_auc": areas}
