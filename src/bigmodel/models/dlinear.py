"""Linear forecasts of a series from its trend and the rest: hard to beat, and quick."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt

__all__ = ["DLinear"]


class DLinear(nn.Module):
    """DLinear (Zeng et al. 2023, arXiv:2205.13504). (N, T, C) to (N, H, C); the same weights for each series.

    The trend is the mean over `kernel` steps, the ends repeated; it and the rest are each mapped from T to H steps.
    `from_last` tells the way from the last value, as the same paper's NLinear does: for series that wander.

    Raises:
        ValueError: the kernel is even, and has no middle.
    """

    def __init__(
        self, window: PositiveInt, horizon: PositiveInt, kernel: PositiveInt = 25, from_last: bool = False
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel: must be odd, not {kernel}")
        self._kernel, self._from_last = kernel, from_last
        self.trend = nn.Linear(window, horizon)
        self.rest = nn.Linear(window, horizon)

    def forward(self, x_NTC: Tensor) -> Tensor:
        x_NCT = x_NTC.transpose(1, 2)
        last_NC1 = x_NCT[..., -1:] if self._from_last else 0
        x_NCT = x_NCT - last_NC1
        side = self._kernel // 2
        trend_NCT = F.avg_pool1d(F.pad(x_NCT, (side, side), mode="replicate"), self._kernel, stride=1)
        y_NCH = self.trend(trend_NCT) + self.rest(x_NCT - trend_NCT) + last_NC1
        return y_NCH.transpose(1, 2)  # type: ignore[no-any-return]
