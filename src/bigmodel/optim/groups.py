"""Parameter groups by weight decay and by learning-rate factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bigmodel.formatting import format_count
from bigmodel.models.weights.name_patterns import match_names


def weight_decay_groups(model: nn.Module, weight_decay: float, decay_all: bool) -> list[dict[str, Any]]:
    """One or two parameter groups in the model's order; what has fewer than two dimensions is a norm or a bias, and
    does not decay unless asked.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if decay_all or weight_decay == 0:
        return [{"params": trained, "weight_decay": weight_decay}]
    parts = (
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    )
    return [part for part in parts if part["params"]]


def scale_lrs(optimizers: Sequence[torch.optim.Optimizer], model: nn.Module, factors: Mapping[str, float]) -> str:
    """Scale the learning rate of parameters whose names match a pattern; return a line about it.

    The last matching pattern wins. Matched parameters move to groups of their own at the end, with their group's other
    options; a schedule multiplies all rates, so the ratio stays. An emptied first group stays, because it reports the
    base learning rate.

    Raises:
        ValueError: a pattern matches no parameter that is trained.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    pattern_of = {
        id(trained[name]): pattern for pattern in factors for name in match_names(pattern, trained, "trained parameter")
    }
    for optimizer in optimizers:
        for group in [*optimizer.param_groups]:
            parameters = group["params"]
            group["params"] = [p for p in parameters if id(p) not in pattern_of]
            for pattern, factor in factors.items():
                part = [p for p in parameters if pattern_of.get(id(p)) == pattern]
                if part:
                    optimizer.add_param_group({**group, "params": part, "lr": group["lr"] * factor})
    counts = [[*pattern_of.values()].count(pattern) for pattern in factors]
    return "; ".join(
        f"{pattern} at {factor:g} times the rate ({format_count(count, 'parameter')})"
        for (pattern, factor), count in zip(factors.items(), counts, strict=True)
    )
