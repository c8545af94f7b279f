"""Multilayer perceptron over the flattened input."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction

__all__ = ["MLP"]


class MLP(nn.Module):
    """Linear layers with ReLU and dropout between them. (N, ...) to logits (N, classes)."""

    def __init__(
        self,
        input_shape: Sequence[PositiveInt],
        num_classes: PositiveInt,
        hidden: Sequence[PositiveInt] = (256, 256),
        dropout: ProperFraction = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = math.prod(input_shape)
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x.flatten(1)))  # type: ignore[no-any-return]
