"""Standardize the values of series for a model, and invert it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.constraints import Positive


@dataclass(frozen=True)
class Standardizer:
    """Standardization of values (..., C), or with `log` of their logarithms, by each series' mean and deviation.

    Raises:
        ValueError: mean and std are not one number for each of the same series.
    """

    mean: Sequence[float]
    std: Sequence[Positive]
    log: bool = False

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"mean and std: {len(self.mean)} and {len(self.std)} numbers; each needs one a series")

    def transform(self, values: Tensor) -> Tensor:
        """Return float32 of values (..., C)."""
        mean_C, std_C = self._moments(values)
        values = values.to(mean_C.dtype)
        return (((values.log() if self.log else values) - mean_C) / std_C).float()

    def inverse_transform(self, scaled: Tensor) -> Tensor:
        """Invert `transform`: values (..., C)."""
        mean_C, std_C = self._moments(scaled)
        values = scaled.to(mean_C.dtype) * std_C + mean_C
        return values.exp() if self.log else values

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        dtype = torch.float32 if like.device.type == "mps" else torch.float64
        mean_C, std_C = (torch.tensor(part, dtype=dtype, device=like.device) for part in (self.mean, self.std))
        return mean_C, std_C
