"""Which parameters decay: matrices and filters do; norms and biases do not, unless asked."""

from __future__ import annotations

from typing import Any

from torch import nn


def decay_groups(model: nn.Module, weight_decay: float, decay_all: bool) -> list[dict[str, Any]]:
    """One or two parameter groups in the model's order; what has fewer than two dimensions is a norm or a bias."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if decay_all or weight_decay == 0:
        return [{"params": trained, "weight_decay": weight_decay}]
    parts = (
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    )
    return [part for part in parts if part["params"]]
