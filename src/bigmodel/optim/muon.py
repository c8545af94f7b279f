"""Muon (Jordan et al. 2024) for hidden matrices, AdamW for everything else."""

from __future__ import annotations

import torch
from torch import nn

from bigmodel.optim.groups import decay_groups
from bigmodel.ranges import BelowOne, NonNegative, Positive

__all__ = ["muon"]


def muon(
    model: nn.Module,
    lr: Positive = 0.02,
    momentum: BelowOne = 0.95,
    adamw_lr: Positive = 0.001,
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999),
    weight_decay: NonNegative = 0.01,
    decay_all: bool = False,
) -> list[torch.optim.Optimizer]:
    """Two optimizers: torch's Muon over the matrices of the linear layers, fused AdamW over filters, embeddings, norms
    and biases. The last linear layer goes to AdamW too, as Muon's authors advise, unless it is the only matrix.

    Raises:
        ValueError: the model has no matrix.
    """
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    matrices = [weight for weight in (linear[:-1] or linear) if weight.requires_grad]
    if not matrices:
        raise ValueError("muon needs a model with a linear layer; use optim=adamw")
    chosen = {id(matrix) for matrix in matrices}
    rest = [
        group | {"params": [p for p in group["params"] if id(p) not in chosen]}
        for group in decay_groups(model, weight_decay, decay_all)
    ]
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="original"),
        torch.optim.AdamW(
            [group for group in rest if group["params"]],
            lr=adamw_lr,
            betas=(float(betas[0]), float(betas[1])),
            fused=True,
        ),
    ]
