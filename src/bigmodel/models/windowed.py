"""Reversible instance normalization (RevIN, Kim et al. 2022, without affine weights).

Standardize each window per series, and undo it on the forecast: a model need not learn the level of a window, which
drifts between training and test.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_EPSILON = 1e-5  # added to variances, for constant windows


def instance_normalize(x_NTC: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Normalize windows (N, T, C) over time; also return the inverse, for forecasts (N, H, C)."""
    mean_N1C = x_NTC.mean(1, keepdim=True)
    std_N1C = torch.sqrt(x_NTC.var(1, keepdim=True, correction=0) + _EPSILON)
    return (x_NTC - mean_N1C) / std_N1C, lambda y_NHC: y_NHC * std_N1C + mean_N1C
