"""Residual networks of basic blocks (He et al. 2015, arXiv:1512.03385), for small images too."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bigmodel.ranges import PositiveInt

__all__ = ["ResNet"]

SMALL_IMAGE = 64  # pixels a side: up to here the stem keeps the resolution


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut, projected where the shape changes."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        h_NCHW = self.relu(self.bn1(self.conv1(x_NCHW)))
        h_NCHW = self.bn2(self.conv2(h_NCHW))
        return self.relu(h_NCHW + self.shortcut(x_NCHW))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """Four stages of basic blocks, each half the resolution and twice the width. (N, C, H, W) to logits (N, classes).

    Images up to 64 pixels a side get a 3x3 stem without stride or pooling, as in the paper's CIFAR networks.
    """

    def __init__(
        self,
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        num_classes: PositiveInt,
        blocks: Sequence[PositiveInt] = (2, 2, 2, 2),
        width: PositiveInt = 64,
    ) -> None:
        super().__init__()
        depth, height, image_width = input_shape
        if max(height, image_width) <= SMALL_IMAGE:
            stem: list[nn.Module] = [nn.Conv2d(depth, width, 3, 1, 1, bias=False)]
            pool: list[nn.Module] = []
        else:
            stem = [nn.Conv2d(depth, width, 7, 2, 3, bias=False)]
            pool = [nn.MaxPool2d(3, 2, 1)]
        self.stem = nn.Sequential(*stem, nn.BatchNorm2d(width), nn.ReLU(inplace=True), *pool)
        layers: list[nn.Module] = []
        width_in = width
        for stage, count in enumerate(blocks):
            stage_width = width * 2**stage
            for index in range(count):
                layers.append(BasicBlock(width_in, stage_width, stride=2 if stage and not index else 1))
                width_in = stage_width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(width_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_NCHW: Tensor) -> Tensor:
        h_NC = self.blocks(self.stem(x_NCHW)).mean((2, 3))
        return self.head(h_NC)  # type: ignore[no-any-return]
