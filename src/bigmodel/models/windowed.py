"""Each window of each series brought to mean 0 and deviation 1, and what is told of it brought back.

Reversible instance normalisation (Kim et al. 2022) without weights: the level of a window, which wanders from training
to testing, is taken out of what a model has to learn.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_EPSILON = 1e-5  # of a variance, for windows that stand still


def instance_normalize(x_NTC: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The window (N, T, C) normalised over its steps, and the way back for (N, H, C)."""
    mean_N1C = x_NTC.mean(1, keepdim=True)
    std_N1C = torch.sqrt(x_NTC.var(1, keepdim=True, correction=0) + _EPSILON)
    return (x_NTC - mean_N1C) / std_N1C, lambda y_NHC: y_NHC * std_N1C + mean_N1C
