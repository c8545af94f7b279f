"""Metrics of regression and forecasting are sums: the same for every batching, and those of the definition."""

import pytest
import torch
from torch import nn

from bigmodel.interfaces import Batch, Task
from bigmodel.tasks.forecasting import Forecasting
from bigmodel.tasks.losses import MeanSquaredError
from bigmodel.tasks.regression import Regression
from named_sums import added


def reported(task: Task, batch: Batch, sizes: list[int]) -> dict[str, object]:
    parts = []
    for inputs, targets in zip(batch.inputs.split(sizes), batch.targets.split(sizes), strict=True):
        piece = Batch(inputs, targets)
        loss, outputs = task.loss(nn.Identity(), piece)
        parts.append(task.eval_sums(loss, outputs, piece))
    return task.eval_metrics(added(parts))


def test_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(10, 1, generator=generator)
    told = true + torch.randn(10, 1, generator=generator)
    batch, task = Batch(told, true), Regression(MeanSquaredError(), std=3.0)
    report = reported(task, batch, [10])
    mse = (told - true).square().mean().item()
    assert report["mse"] == report["loss"] == pytest.approx(mse)
    assert report["r2"] == pytest.approx(1 - mse / true.var(correction=0).item(), abs=1e-5)
    assert report["mae_units"] == pytest.approx(3 * (told - true).abs().mean().item())
    assert reported(task, batch, [3, 3, 4]) == pytest.approx(report)
    with pytest.raises(ValueError, match="task=classification"):
        Regression(MeanSquaredError(), std=None)


def test_forecasts_stand_beside_their_rivals_in_the_series_units() -> None:
    values = torch.tensor([[10.0, 20.0, 10.0, 20.0], [40.0, 80.0, 40.0, 80.0]])[..., None]  # two series, season 2
    mean, std = [3.0], [0.5]
    scaled = (values.log() - 3.0) / 0.5
    batch = Batch(scaled, scaled + 1.0)  # the model, which says its input, is wrong by one deviation everywhere
    task = Forecasting(MeanSquaredError(), season=2, mean=mean, std=std, log=True)
    report = reported(task, batch, [2])
    assert (report["mse"], report["mae"]) == pytest.approx((1.0, 1.0))
    assert report["seasonal_mse"] == pytest.approx(1.0)
    # the last value is off by the one deviation, or by that less a doubling
    doubling = torch.tensor(2.0).log().item() / 0.5
    assert report["naive_mae"] == pytest.approx((1.0 + abs(doubling - 1.0)) / 2)
    assert report["mae_units"] == pytest.approx([(torch.tensor(0.5).exp().item() - 1) * 37.5], rel=1e-5)
    assert reported(task, batch, [1, 1])["naive_mae_units"] == pytest.approx(report["naive_mae_units"])
