"""Forecasting of several series, always next to two baselines that need no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bigmodel.constraints import Positive, PositiveInt
from bigmodel.datasets.tables.standardizer import Standardizer
from bigmodel.interfaces import Batch
from bigmodel.metric_spec import MetricSpec, standard_specs
from bigmodel.tasks.regression import Regression

__all__ = ["Forecasting"]

BASELINES = ("", "naive_", "seasonal_")  # prefixes: the model itself, then two forecasts without a model


class Forecasting(Regression):
    """Forecast the next H steps of C series: inputs (N, T, C), outputs and targets (N, H, C), standardized.

    Two baselines are evaluated with the model: `naive` repeats the last value, `seasonal` the last `season` values.
    `mean`, `std` and `log` undo the dataset's standardization, for errors in the series' own units.

    Raises:
        ValueError: mean and std are not one number for each of the same series.
    """

    metric_names = ("loss", "mse", "mae")
    metric_specs = standard_specs(*(f"{rival}{error}" for rival in BASELINES for error in ("mse", "mae"))) | {
        "loss": MetricSpec("min")
    }

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        season: PositiveInt,
        mean: Sequence[float],
        std: Sequence[Positive],
        log: bool = False,
    ) -> None:
        super().__init__(loss, std=1.0)
        self._season = season
        self._scale = Standardizer(mean, std, log)

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `samples`, `loss` and `values` per series; then for each forecast and series (C,) its squared and
        absolute errors, standardized, and its absolute errors in the series' units.
        """
        inputs, targets = batch.inputs, batch.targets
        count, length, _ = targets.shape
        true = self._scale.inverse_transform(targets)
        sums = {"samples": torch.full_like(loss, count), "loss": loss * count}
        sums["values"] = torch.full_like(loss, count * length)
        forecasts = (outputs, repeat_season(inputs, 1, length), repeat_season(inputs, self._season, length))
        for name, forecast in zip(BASELINES, forecasts, strict=True):
            units_MC = (self._scale.inverse_transform(forecast) - true).flatten(0, 1)
            error_MC = (forecast - targets).flatten(0, 1).to(units_MC.dtype)
            sums[f"{name}squared_errors"] = error_MC.square().sum(0)
            sums[f"{name}absolute_errors"] = error_MC.abs().sum(0)
            sums[f"{name}absolute_errors_units"] = units_MC.abs().sum(0)
        return sums

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return loss; mse and mae, also of `naive_` and `seasonal_`; and mae_units, naive_mae_units,
        seasonal_mae_units, each a list with one number per series, in its own units.
        """
        values = float(sums["values"])
        metrics: dict[str, Any] = {"loss": float(sums["loss"]) / float(sums["samples"])}
        tables: dict[str, Any] = {}
        for name in BASELINES:
            squared, absolute, units = (
                [error / values for error in sums[f"{name}{errors}"].tolist()]
                for errors in ("squared_errors", "absolute_errors", "absolute_errors_units")
            )
            metrics[f"{name}mse"] = sum(squared) / len(squared)
            metrics[f"{name}mae"] = sum(absolute) / len(absolute)
            tables[f"{name}mae_units"] = units
        return metrics | tables


def repeat_season(inputs_NTC: Tensor, season: int, length: int) -> Tensor:
    """Repeat the last `season` steps, or all of them where there are fewer: (N, length, C)."""
    steps = torch.arange(length, device=inputs_NTC.device) % min(season, inputs_NTC.shape[1])
    return inputs_NTC[:, -season:][:, steps]
