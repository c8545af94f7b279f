"""Classification: loss, accuracy, top-5, AUC of two classes, per-class accuracy, confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.interfaces import Batch
from bigmodel.metric_spec import omit, standard_specs
from bigmodel.tasks.metrics import auc
from bigmodel.tasks.metrics.mean_loss import loss_sums, mean_loss

__all__ = ["Classification"]


class Classification:
    """Outputs (N, C), targets (N,) int64. Metrics come from sums over samples: exact for any batching.

    In training targets may also be class probabilities (N, C), as of mixed samples; accuracy then counts the likeliest
    class as the true one.

    Raises:
        ValueError: there are fewer than two classes.
    """

    metric_specs = standard_specs("loss", "accuracy", "top5", "auc")

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], num_classes: PositiveInt | None) -> None:
        if num_classes is None or num_classes < 2:
            way = "; for numbers set task=regression, for labels task=multi_label" if num_classes is None else ""
            raise ValueError(f"num_classes: classification needs two classes or more, not {num_classes}{way}")
        self.criterion = loss
        self._classes = num_classes
        self._top5 = num_classes > 5
        self._binary = num_classes == 2
        self.metric_names = ("loss", "accuracy", *(("top5",) if self._top5 else ("auc",) if self._binary else ()))
        self.metric_specs = omit(self.metric_specs, {"top5", "auc"} - {*self.metric_names})

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        outputs_NC = model(batch.inputs)
        return self.criterion(outputs_NC.float(), batch.targets), outputs_NC

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        classes_N = batch.targets if batch.targets.ndim == 1 else batch.targets.argmax(1)
        return loss_sums(loss, len(batch.targets)) | {"correct": (outputs.argmax(1) == classes_N).sum()}

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": mean_loss(sums), "accuracy": float(sums["correct"]) / float(sums["loss_denominator"])}

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `loss`, `confusion` (C, C) as (true, predicted), `top5` hits, and the `scores` histograms of two
        classes.
        """
        pairs_N = batch.targets * self._classes + outputs.argmax(1)
        confusion_CC = torch.bincount(pairs_N, minlength=self._classes**2).view(self._classes, self._classes)
        sums = {"loss": loss * len(batch.targets), "confusion": confusion_CC}
        if self._top5:
            sums["top5"] = (outputs.topk(5).indices == batch.targets[:, None]).sum()
        if self._binary:
            sums["scores"] = auc.histograms(outputs[:, 1] - outputs[:, 0], batch.targets)
        return sums

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return loss, accuracy, top5 or auc, per_class_accuracy (null for a class without samples), and confusion."""
        confusion = [[int(n) for n in row] for row in sums["confusion"].tolist()]
        count = sum(map(sum, confusion))
        diagonal = [confusion[i][i] for i in range(self._classes)]
        return {
            "loss": float(sums["loss"]) / count,
            "accuracy": sum(diagonal) / count,
            **({"top5": float(sums["top5"]) / count} if self._top5 else {}),
            **({"auc": auc.auc_from_histograms(sums["scores"].tolist())} if self._binary else {}),
            "per_class_accuracy": [
                d / sum(row) if any(row) else None for d, row in zip(diagonal, confusion, strict=True)
            ],
            "confusion": confusion,
        }
