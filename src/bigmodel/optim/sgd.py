"""Stochastic gradient descent with momentum (Sutskever et al. 2013)."""

from __future__ import annotations

import torch
from torch import nn

from bigmodel.constraints import NonNegative, Positive, ProperFraction
from bigmodel.optim.groups import weight_decay_groups

__all__ = ["sgd"]


def sgd(
    model: nn.Module,
    lr: Positive = 0.05,
    momentum: ProperFraction = 0.9,
    nesterov: bool = True,
    weight_decay: NonNegative = 0.0005,
    decay_all: bool = False,
) -> torch.optim.SGD:
    """Build torch's fused SGD over all parameters. Raises ValueError for Nesterov without momentum."""
    groups = weight_decay_groups(model, weight_decay, decay_all)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
