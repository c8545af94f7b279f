"""Recurrent network that forecasts series from its last state."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.models.windowed import instance_normalize

__all__ = ["RNN"]


class RNN(nn.Module):
    """LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014). (N, T, C) to (N, H, C), all series at once.

    Each window is normalized, and its forecast denormalized: see `windowed`.
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
        cell_type = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        between_layers = dropout if layers > 1 else 0.0  # torch warns of dropout that is never applied
        self.cells = cell_type(channels, hidden, layers, batch_first=True, dropout=between_layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, horizon * channels)

    def forward(self, x_NTC: Tensor) -> Tensor:
        window_NTC, denormalize = instance_normalize(x_NTC)
        states_NTF, _ = self.cells(window_NTC)
        return denormalize(self.head(self.dropout(states_NTF[:, -1])).unflatten(1, self._shape))
