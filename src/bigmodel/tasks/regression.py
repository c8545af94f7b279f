"""Regression: loss, mean squared and absolute error, and the fraction of variance explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import Positive
from bigmodel.interfaces import Batch
from bigmodel.metric_spec import MetricSpec, standard_specs
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.tasks.metrics.mean_loss import loss_sums, mean_loss

__all__ = ["Regression"]


class Regression:
    """Predict numbers: outputs and targets (N, ...), standardized. Metrics come from sums over samples: exact for any
    batching.

    `std`, the targets' standard deviation before standardization, gives errors in the targets' own units as well.

    Raises:
        ValueError: there is no `std`, because the targets are classes, or the loss is for classes.
    """

    metric_names: tuple[str, ...] = ("loss", "mse", "mae", "r2")
    metric_specs = standard_specs("mse", "mae", "r2", "rmse_units", "mae_units") | {"loss": MetricSpec("min")}

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], std: Positive | None) -> None:
        if std is None:
            raise ValueError(
                "std: the data's target is a class, not a number; set task=classification or dataset.target_type=number"
            )
        if isinstance(loss, CrossEntropy):  # of a single output it is 0 for any target
            raise ValueError("loss: cross-entropy is for classes; set loss=mse")
        self._loss = loss
        self._std = std

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        outputs = model(batch.inputs)
        return self._loss(outputs.float(), batch.targets), outputs

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return sums of losses and errors; `loss_denominator` counts samples, `values` the numbers in them."""
        error = outputs.float() - batch.targets
        return {
            **loss_sums(loss, len(batch.targets)),
            "values": torch.full_like(loss, error.numel()),
            "squared_errors": error.square().sum(),
            "absolute_errors": error.abs().sum(),
        }

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        values = float(sums["values"])
        return {
            "loss": mean_loss(sums),
            "mse": float(sums["squared_errors"]) / values,
            "mae": float(sums["absolute_errors"]) / values,
        }

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `train_sums`, and the sums of the targets and of their squares."""
        moments = {"targets": batch.targets.sum(), "squared_targets": batch.targets.square().sum()}
        return self.train_sums(loss, outputs, batch) | moments

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return loss, mse, mae and r2 (0 where the targets are all equal); rmse_units and mae_units, in the data's
        units.
        """
        values, metrics = float(sums["values"]), self.train_metrics(sums)
        variance = float(sums["squared_targets"]) / values - (float(sums["targets"]) / values) ** 2
        units = {"rmse_units": metrics["mse"] ** 0.5 * self._std, "mae_units": metrics["mae"] * self._std}
        return metrics | {"r2": 1 - metrics["mse"] / variance if variance > 0 else 0.0} | units
