"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019)."""

from __future__ import annotations

import torch
from torch import nn

from bigmodel.constraints import BelowOne, NonNegative, Positive
from bigmodel.optim.groups import decay_groups

__all__ = ["adam", "adamw"]


def adam(
    model: nn.Module, lr: Positive = 0.001, betas: tuple[BelowOne, BelowOne] = (0.9, 0.999), eps: Positive = 1e-8
) -> torch.optim.Adam:
    """torch's fused Adam over all parameters, without weight decay."""
    return torch.optim.Adam(
        decay_groups(model, 0.0, True), lr=lr, betas=(float(betas[0]), float(betas[1])), eps=eps, fused=True
    )


def adamw(
    model: nn.Module,
    lr: Positive = 0.001,
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
    decay_all: bool = False,
) -> torch.optim.AdamW:
    """torch's fused AdamW over all parameters."""
    groups = decay_groups(model, weight_decay, decay_all)
    return torch.optim.AdamW(groups, lr=lr, betas=(float(betas[0]), float(betas[1])), eps=eps, fused=True)
