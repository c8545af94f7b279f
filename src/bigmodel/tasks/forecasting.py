"""The next steps of several series, always beside what a forecast without a model would have said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.datasets.scale import Scale
from bigmodel.interfaces import Batch
from bigmodel.ranges import Positive, PositiveInt

__all__ = ["Forecasting"]

_RIVALS = ("", "naive_", "seasonal_")


class Forecasting:
    """Inputs (N, T, C), outputs and targets (N, H, C), standardised: H steps of C series.

    Two forecasts stand beside the model's, wherever it is evaluated: `naive`, the last value again and again, and
    `seasonal`, the last `season` values again and again. `mean`, `std` and `log` undo what the dataset did to each
    series, for errors in their own units.

    Raises:
        ValueError: mean and std are not one number for each of the same series.
    """

    lower_is_better = frozenset({"loss", "mse", "mae"})
    metric_names = ("loss", "mse", "mae")

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        season: PositiveInt,
        mean: Sequence[float],
        std: Sequence[Positive],
        log: bool = False,
    ) -> None:
        self._loss, self._season, self._scale = loss, season, Scale(mean, std, log)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        outputs_NHC = model(batch.inputs)
        return self._loss(outputs_NHC.float(), batch.targets), outputs_NHC

    def tally(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """[samples, sum of losses, values, sums of squared and absolute errors]."""
        error, count = outputs.float() - batch.targets, len(batch.targets)
        sums = [torch.full_like(loss, count), loss.detach() * count, torch.full_like(loss, error.numel())]
        return torch.stack([*sums, error.square().sum(), error.abs().sum()])

    def metrics(self, tally: Sequence[float]) -> dict[str, float]:
        samples, loss, values, squares, absolutes = tally
        return {"loss": loss / samples, "mse": squares / values, "mae": absolutes / values}

    def examination(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """[samples, sum of losses, forecasts of one series], then for the model and both rivals squared and absolute
        errors, scaled, and absolute ones in the series' units (3 x 3 x C).
        """
        inputs, targets = batch.inputs, batch.targets
        count, length, _ = targets.shape
        sums = [torch.stack([torch.full_like(loss, count), loss * count, torch.full_like(loss, count * length)])]
        true = self._scale.undone(targets)
        for forecast in (outputs, repeated(inputs, 1, length), repeated(inputs, self._season, length)):
            error_MC = (forecast - targets).flatten(0, 1).double()
            units_MC = (self._scale.undone(forecast) - true).flatten(0, 1)
            sums += [error_MC.square().sum(0), error_MC.abs().sum(0), units_MC.abs().sum(0)]
        return torch.cat([part.to(sums[-1].dtype) for part in sums])

    def report(self, examination: Sequence[float]) -> dict[str, Any]:
        """loss; mse and mae, also of `naive_` and `seasonal_`; and mae_units, naive_mae_units, seasonal_mae_units: a
        list with one number a series, in its own units.
        """
        samples, loss, values, *errors = examination
        count = len(errors) // 9
        rows = [[error / values for error in errors[start : start + count]] for start in range(0, len(errors), count)]
        report: dict[str, Any] = {"loss": loss / samples}
        tables: dict[str, Any] = {}
        for place, name in enumerate(_RIVALS):
            squares, absolutes, units = rows[3 * place : 3 * place + 3]
            report |= {f"{name}mse": sum(squares) / count, f"{name}mae": sum(absolutes) / count}
            tables[f"{name}mae_units"] = units
        return report | tables


def repeated(inputs_NTC: Tensor, season: int, length: int) -> Tensor:
    """(N, length, C): the last `season` steps again and again, or all of them where there are fewer."""
    steps = torch.arange(length, device=inputs_NTC.device) % min(season, inputs_NTC.shape[1])
    return inputs_NTC[:, -season:][:, steps]
