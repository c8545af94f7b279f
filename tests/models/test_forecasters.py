"""What the forecasting models promise by their construction, whatever their weights."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bigmodel.models.dlinear import DLinear
from bigmodel.models.patch_transformer import PatchTransformer
from bigmodel.models.rnn import RNN

MODELS: dict[str, Callable[[], nn.Module]] = {
    "dlinear": lambda: DLinear(24, 5, kernel=7, subtract_last=True),
    "gru": lambda: RNN(24, 5, channels=2, cell="gru", hidden=8, layers=2, dropout=0.1),
    "lstm": lambda: RNN(24, 5, channels=2, hidden=8),
    "patch_transformer": lambda: PatchTransformer(24, 5, patch=8, stride=4, width=8, heads=2, depth=1),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_series_that_lies_higher_is_told_higher(name: str) -> None:
    torch.manual_seed(0)
    model, x_NTC = MODELS[name]().eval(), torch.randn(3, 24, 2)
    with torch.no_grad():
        told, higher = model(x_NTC), model(x_NTC + torch.tensor([5.0, -2.0]))
    assert told.shape == (3, 5, 2)
    torch.testing.assert_close(higher, told + torch.tensor([5.0, -2.0]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["dlinear", "patch_transformer"])
def test_each_series_goes_by_itself(name: str) -> None:
    torch.manual_seed(0)
    model, x_NTC = MODELS[name]().eval(), torch.randn(3, 24, 2)
    with torch.no_grad():
        swapped = model(x_NTC.flip(2)).flip(2)
        torch.testing.assert_close(swapped, model(x_NTC))


def test_the_trend_of_a_line_is_the_line() -> None:
    """Away from the ends; so all that is told of the inner steps comes through the weights of the trend."""
    model = DLinear(24, 1, kernel=5)
    with torch.no_grad():
        model.trend.weight.zero_()
        model.rest.weight.zero_()
        model.rest.weight[:, 2:-2] = 1.0
        told = model(torch.arange(24.0).view(1, 24, 1))
    torch.testing.assert_close(told.squeeze(), (model.trend.bias + model.rest.bias).squeeze())
