"""Small convolutional network over spectrograms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction

__all__ = ["AudioCNN"]


class AudioCNN(nn.Module):
    """3x3 convolutions with batch norm, each halving time and mel; then mean and maximum pooling over both.

    (N, C, T, M) to logits (N, classes).
    """

    def __init__(
        self,
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        num_classes: PositiveInt,
        widths: Sequence[PositiveInt] = (32, 64, 96, 128),
        dropout: ProperFraction = 0.2,
    ) -> None:
        super().__init__()
        depth = input_shape[0]
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv2d(depth, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            depth = width
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * depth, num_classes)

    def forward(self, x_NCTM: Tensor) -> Tensor:
        h_NCTM = self.layers(x_NCTM)
        pooled_NF = torch.cat([h_NCTM.mean((2, 3)), h_NCTM.amax((2, 3))], dim=1)
        return self.head(self.dropout(pooled_NF))  # type: ignore[no-any-return]
