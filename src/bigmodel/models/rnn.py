"""A recurrent network over a window of series; its last state says the next steps."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.models.windowed import instance_normalize

__all__ = ["RNN"]


class RNN(nn.Module):
    """LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014). (N, T, C) to (N, H, C), all series at once.

    Each window is normalised before, and its forecast brought back: see `windowed`.
    """

    def __init__(
        self,
        window: PositiveInt,
        horizon: PositiveInt,
        channels: PositiveInt,
        cell: Literal["lstm", "gru"] = "lstm",
        hidden: PositiveInt = 64,
        layers: PositiveInt = 1,
        dropout: ProperFraction = 0.0,
    ) -> None:
        super().__init__()
        self._shape = (horizon, channels)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        between = dropout if layers > 1 else 0.0  # torch warns of one that is never applied
        self.cells = kind(channels, hidden, layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, horizon * channels)

    def forward(self, x_NTC: Tensor) -> Tensor:
        window_NTC, back = instance_normalize(x_NTC)
        states_NTF, _ = self.cells(window_NTC)
        return back(self.head(self.dropout(states_NTF[:, -1])).unflatten(1, self._shape))
