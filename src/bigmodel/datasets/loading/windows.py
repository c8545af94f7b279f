"""Sliding windows over a series, gathered on indexing: overlapping windows share the series' memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class SlidingWindows:
    """Windows of `length` time steps over `series_TC`. An `IndexableSamples`.

    Window i of `count` begins at step `first` + i, or, if windows are left out, at `first` + `starts_N`[i].
    """

    series_TC: Tensor
    first: int
    count: int
    length: int
    starts_N: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.series_TC.device

    @property
    def nbytes(self) -> int:
        return self.series_TC.nbytes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, numbers_N: Tensor) -> Tensor:
        """Return the windows (N, length, C) with these indices."""
        steps_L = torch.arange(self.length, device=self.device)
        begins_N = numbers_N if self.starts_N is None else self.starts_N[numbers_N]
        return self.series_TC[(begins_N + self.first)[:, None] + steps_L]

    def to(self, device: torch.device) -> SlidingWindows:
        """Copy to another device."""
        starts_N = None if self.starts_N is None else self.starts_N.to(device)
        return replace(self, series_TC=self.series_TC.to(device), starts_N=starts_N)
