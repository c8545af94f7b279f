"""Muon for filters of fixed norm, SGD with Nesterov momentum for all others, as the CIFAR-10 speed records use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bigmodel.constraints import Fraction, NonNegative, Positive, PositiveInt, ProperFraction
from bigmodel.optim.muon import Muon

__all__ = ["muon_sgd"]


def muon_sgd(
    model: nn.Module,
    lr: Positive = 0.24,
    momentum: ProperFraction = 0.6,
    iterations: PositiveInt = 3,
    bias_lr: Positive = 106.0,
    head_lr: Positive = 0.0204,
    sgd_momentum: ProperFraction = 0.85,
    decay: NonNegative = 0.004,
    early_params: Sequence[str] = (),
    early_until: Fraction = 1.0,
) -> list[torch.optim.Optimizer]:
    """Two optimizers: Muon (`lr`, `momentum`) over filters of four dimensions, which keep the norm sqrt(rows); SGD over
    the matrices (`head_lr`) and all vectors (`bias_lr`). `decay` is the fraction that an SGD weight loses a step at the
    base rate. Parameters named in `early_params` are trained up to the fraction `early_until` of the run, on a schedule
    that ends there; afterwards they cost nothing.

    Raises:
        ValueError: the model has no filters, or no parameter of a name in `early_params`.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    missing = [name for name in early_params if name not in named]
    if missing:
        raise ValueError(
            f"early_params: the model trains no parameter '{missing[0]}'; it has {', '.join(list(named)[:5])} ..."
        )
    filters = [p for p in named.values() if p.ndim == 4]
    if not filters:
        raise ValueError("muon_sgd needs a model with 2-D convolutions")
    rest = {name: p for name, p in named.items() if p.ndim != 4}
    groups: list[dict[str, Any]] = [
        {"params": [rest[name] for name in early_params], "lr": bias_lr, "until": early_until},
        {"params": [p for name, p in rest.items() if p.ndim < 2 and name not in early_params], "lr": bias_lr},
        {"params": [p for name, p in rest.items() if p.ndim >= 2 and name not in early_params], "lr": head_lr},
    ]
    groups = [group | {"weight_decay": decay / group["lr"]} for group in groups if group["params"]]
    return [
        Muon(filters, lr=lr, momentum=momentum, iterations=iterations, unit=True),
        torch.optim.SGD(groups, momentum=sgd_momentum, nesterov=sgd_momentum > 0, fused=True),
    ]
