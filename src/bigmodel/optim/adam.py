"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019)."""

from __future__ import annotations

import torch
from torch import nn

from bigmodel.constraints import NonNegative, Positive, ProperFraction
from bigmodel.optim.groups import weight_decay_groups

__all__ = ["adam", "adamw"]


def adam(
    model: nn.Module,
    lr: Positive = 0.001,
    betas: tuple[ProperFraction, ProperFraction] = (0.9, 0.999),
    eps: Positive = 1e-8,
) -> torch.optim.Adam:
    """Build torch's fused Adam over all parameters, without weight decay."""
    return torch.optim.Adam(
        weight_decay_groups(model, 0.0, True), lr=lr, betas=(float(betas[0]), float(betas[1])), eps=eps, fused=True
    )


def adamw(
    model: nn.Module,
    lr: Positive = 0.001,
    betas: tuple[ProperFraction, ProperFraction] = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
    decay_all: bool = False,
) -> torch.optim.AdamW:
    """Build torch's fused AdamW over all parameters."""
    groups = weight_decay_groups(model, weight_decay, decay_all)
    return torch.optim.AdamW(groups, lr=lr, betas=(float(betas[0]), float(betas[1])), eps=eps, fused=True)
