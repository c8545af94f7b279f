"""Several labels for each sample, each yes or no by itself, some of them unknown: loss and AUC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.interfaces import Batch
from bigmodel.metric_spec import LowerIsBetter, standard_specs
from bigmodel.tasks.metrics import auc

__all__ = ["MultiLabel"]


class MultiLabel:
    """Outputs (N, K): the log-odds of each label. Targets (N, K): 1, 0, or NaN where it is not known.

    The loss is the mean binary cross-entropy of the known labels, in nats; unknown ones count nowhere. The AUC is the
    mean of the labels' own, over those of which there are samples with and without.

    Raises:
        ValueError: the data has no labels.
    """

    metric_names = ("loss", "auc")
    metric_specs = standard_specs(*metric_names)
    lower_is_better = LowerIsBetter()

    def __init__(self, labels: Sequence[str] | None) -> None:
        if not labels:
            raise ValueError(
                "labels: the data has none; its dataset must tell labels, as dataset.target_is=labels does"
            )

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        outputs_NK = model(batch.inputs)
        known_NK = ~batch.targets.isnan()
        losses_NK = F.binary_cross_entropy_with_logits(
            outputs_NK.float(), batch.targets.nan_to_num(), weight=known_NK.float(), reduction="none"
        )
        return losses_NK.sum() / known_NK.sum().clamp(min=1), outputs_NK

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """[known labels, sum of their losses]."""
        count = (~batch.targets.isnan()).sum().to(loss.dtype)
        return torch.stack([count, loss.detach() * count])

    def train_metrics(self, tally: Sequence[float]) -> dict[str, float]:
        count, total = tally
        return {"loss": total / max(1.0, count)}

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """The tally, and for each label the histograms of its samples without and with it."""
        parts = [self.train_sums(loss, outputs, batch)]
        for odds_N, truth_N in zip(outputs.T, batch.targets.T, strict=True):
            known_N = ~truth_N.isnan()
            parts.append(auc.histograms(odds_N[known_N], truth_N[known_N].long()).to(loss.dtype))
        return torch.cat(parts)

    def eval_metrics(self, examination: Sequence[float]) -> dict[str, Any]:
        """loss, auc (0.5 if no label has one), and per_label_auc, null for a label without samples of either kind."""
        counts, each = examination[2:], 2 * auc.BINS
        scores = [counts[start : start + each] for start in range(0, len(counts), each)]
        areas = [
            auc.auc_from_histograms(part) if any(part[: auc.BINS]) and any(part[auc.BINS :]) else None
            for part in scores
        ]
        there = [area for area in areas if area is not None]
        mean = sum(there) / len(there) if there else 0.5
        return {**self.train_metrics(examination[:2]), "auc": mean, "per_label_auc": areas}
