"""Linear forecasts of a series from its trend and its remainder: a fast and strong baseline."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt

__all__ = ["DLinear"]


class DLinear(nn.Module):
    """DLinear (Zeng et al. 2023, arXiv:2205.13504). (N, T, C) to (N, H, C); the same weights for each series.

    The trend is a moving average over `kernel` time steps, the ends repeated; trend and remainder are each mapped
    linearly from T to H steps. `subtract_last` subtracts the last value and adds it back, as the paper's NLinear does:
    for series that drift.

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(
        self, window: PositiveInt, horizon: PositiveInt, kernel: PositiveInt = 25, subtract_last: bool = False
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel: must be odd, not {kernel}")
        self._kernel = kernel
        self._subtract_last = subtract_last
        self.trend = nn.Linear(window, horizon)
        self.rest = nn.Linear(window, horizon)

    def forward(self, x_NTC: Tensor) -> Tensor:
        x_NCT = x_NTC.transpose(1, 2)
        last_NC1 = x_NCT[..., -1:] if self._subtract_last else 0
        x_NCT = x_NCT - last_NC1
        padding = self._kernel // 2
        trend_NCT = F.avg_pool1d(F.pad(x_NCT, (padding, padding), mode="replicate"), self._kernel, stride=1)
        y_NCH = self.trend(trend_NCT) + self.rest(x_NCT - trend_NCT) + last_NC1
        return y_NCH.transpose(1, 2)  # type: ignore[no-any-return]
