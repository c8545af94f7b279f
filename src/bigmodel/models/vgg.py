"""VGG (Simonyan & Zisserman 2015, arXiv:1409.1556) with batch norm and a head for small images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.models.layers import conv_bn_relu

__all__ = ["VGG"]

_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}  # convolutions per stage, by depth


class VGG(nn.Module):
    """(N, C, H, W) to logits (N, classes): five stages of 3x3 convolutions with `width` to 8 * `width` channels.

    A pooling follows each stage while more than a pixel is left. One linear layer over the mean replaces the paper's
    three, which are made for photos of 224 pixels.
    """

    def __init__(
        self,
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        num_classes: PositiveInt,
        depth: Literal[11, 13, 16] = 11,
        width: PositiveInt = 64,
    ) -> None:
        super().__init__()
        width_in = input_shape[0]
        side = min(input_shape[1:])
        layers: list[nn.Module] = []
        for stage, count in enumerate(_STAGES[depth]):
            stage_width = width * min(2**stage, 8)
            for _ in range(count):
                layers.append(conv_bn_relu(width_in, stage_width, 3))
                width_in = stage_width
            if side > 1:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width_in, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(self.features(x_NCHW).mean((2, 3)))  # type: ignore[no-any-return]
