"""Small network of parallel branches, after GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.models.layers import conv_bn_relu

__all__ = ["Inception"]


class InceptionBlock(nn.Module):
    """Parallel 1x1, 3x3 and 5x5 convolutions and a max pooling, with a quarter of the `width` each.

    A 1x1 convolution with half as many channels precedes 3x3 and 5x5; 5x5 is two 3x3 (Szegedy et al. 2016,
    arXiv:1512.00567).
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        quarter = width // 4
        narrow = max(1, quarter // 2)
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(width_in, quarter, 1),
                nn.Sequential(conv_bn_relu(width_in, narrow, 1), conv_bn_relu(narrow, quarter, 3)),
                nn.Sequential(
                    conv_bn_relu(width_in, narrow, 1),
                    conv_bn_relu(narrow, quarter, 3),
                    conv_bn_relu(quarter, quarter, 3),
                ),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn_relu(width_in, width - 3 * quarter, 1)),
            ]
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return torch.cat([branch(x_NCHW) for branch in self.branches], 1)


class Inception(nn.Module):
    """(N, C, H, W) to logits (N, classes): stages of `blocks` modules, halving the resolution between stages.

    Raises:
        ValueError: the images are too small for this many stages, or a stage is too narrow for four branches.
    """

    def __init__(
        self,
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        num_classes: PositiveInt,
        widths: Sequence[PositiveInt] = (64, 128, 256),
        blocks: PositiveInt = 2,
        stem: PositiveInt = 32,
    ) -> None:
        super().__init__()
        if min(input_shape[1:]) < 2 ** (len(widths) - 1):
            raise ValueError(f"widths: {len(widths)} stages halve {input_shape[1]}x{input_shape[2]} pixels too often")
        if min(widths, default=0) < 4:
            raise ValueError(f"widths: must be 4 or more, a channel per branch, not {list(widths)}")
        layers: list[nn.Module] = [conv_bn_relu(input_shape[0], stem, 3)]
        width_in = stem
        for stage, width in enumerate(widths):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(blocks):
                layers.append(InceptionBlock(width_in, width))
                width_in = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width_in, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(self.features(x_NCHW).mean((2, 3)))  # type: ignore[no-any-return]
