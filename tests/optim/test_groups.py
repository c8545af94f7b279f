"""Rates of chosen parameters, whichever optimizer trains them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.models.cnn import CNN
from bigmodel.optim.adam import adam, adamw
from bigmodel.optim.groups import scale_lrs
from bigmodel.optim.muon import muon
from bigmodel.optim.muon_sgd import muon_sgd
from bigmodel.optim.sgd import sgd
from bigmodel.runtime.lazy_compiler import avoid_dynamo_import, unwrapped_step


@pytest.mark.parametrize("make", [adam, adamw, muon, muon_sgd, sgd], ids=lambda make: make.__name__)
def test_a_first_step_is_as_long_as_the_factor_of_the_last_pattern_that_matches(make: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    model = CNN((1, 8, 8), 3, channels=2, hidden=4)
    factors = {"*.bias": 0.5, "*": 1.0, "head.*": 3.0}
    moved = _moved(copy.deepcopy(model), make, {})
    scaled = _moved(copy.deepcopy(model), make, factors)
    assert {name for name in moved if name.startswith("head.")}
    for name, step in moved.items():
        torch.testing.assert_close(scaled[name], step * (3.0 if name.startswith("head.") else 1.0))


def _moved(model: CNN, make: Callable[..., Any], factors: dict[str, float]) -> dict[str, Tensor]:
    avoid_dynamo_import()
    built = make(model)
    optimizers = built if isinstance(built, list) else [built]
    rates = [float(optimizer.param_groups[0]["lr"]) for optimizer in optimizers]
    if factors:
        scale_lrs(optimizers, model, factors)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == rates  # what the log tells
    generator = torch.Generator().manual_seed(1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    with torch.no_grad():
        for optimizer in optimizers:
            unwrapped_step(optimizer)()
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}
