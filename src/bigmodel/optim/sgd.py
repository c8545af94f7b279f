"""Stochastic gradient descent with momentum (Sutskever et al. 2013)."""

from __future__ import annotations

import torch
from torch import nn

from bigmodel.constraints import BelowOne, NonNegative, Positive
from bigmodel.optim.groups import decay_groups

__all__ = ["sgd"]


def sgd(
    model: nn.Module,
    lr: Positive = 0.05,
    momentum: BelowOne = 0.9,
    nesterov: bool = True,
    weight_decay: NonNegative = 0.0005,
    decay_all: bool = False,
) -> torch.optim.SGD:
    """torch's fused SGD over all parameters. Raises ValueError for Nesterov without momentum."""
    groups = decay_groups(model, weight_decay, decay_all)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
