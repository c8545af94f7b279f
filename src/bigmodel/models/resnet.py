"""Residual networks of basic blocks (He et al. 2015, arXiv:1512.03385), for small images too."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt

__all__ = ["CIFARResNet", "ResNet"]

SMALL_IMAGE = 64  # pixels per side up to which the stem keeps the resolution


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut.

    Where the shape changes, the shortcut is a projection (the paper's option B), or takes every second pixel and pads
    channels with zeros (option A, without parameters).
    """

    def __init__(self, width_in: int, width: int, stride: int, projected: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            project = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            self.shortcut = project if projected else _PadShortcut(width - width_in, stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        h_NCHW = self.relu(self.bn1(self.conv1(x_NCHW)))
        h_NCHW = self.bn2(self.conv2(h_NCHW))
        return self.relu(h_NCHW + self.shortcut(x_NCHW))  # type: ignore[no-any-return]


class _PadShortcut(nn.Module):
    """Take every `stride`-th pixel and add `added` channels of zeros, half of them in front."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self._added = added
        self._stride = stride

    def forward(self, x_NCHW: Tensor) -> Tensor:
        before = self._added // 2
        return F.pad(x_NCHW[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, before, self._added - before))


class CIFARResNet(nn.Module):
    """The paper's networks for CIFAR-10: three stages of (depth - 2) / 6 blocks, shortcuts without parameters.

    (N, C, H, W) to logits (N, classes). Parameter names match Idelbayev's pytorch_resnet_cifar10, whose weights load.

    Raises:
        ValueError: the depth is not 6n + 2.
    """

    def __init__(
        self,
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        num_classes: PositiveInt,
        depth: PositiveInt = 20,
        width: PositiveInt = 16,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth: must be 6n + 2, as 8, 20, 32 or 56, not {depth}")
        self.conv1 = nn.Conv2d(input_shape[0], width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(blocks, width, width, 1)
        self.layer2 = _stage(blocks, width, 2 * width, 2)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, 2)
        self.linear = nn.Linear(4 * width, num_classes)
        _initialize_convolutions(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        h_NCHW = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x_NCHW)).relu_())))
        return self.linear(h_NCHW.mean((2, 3)))  # type: ignore[no-any-return]


def _stage(blocks: int, width_in: int, width: int, stride: int) -> nn.Sequential:
    first = BasicBlock(width_in, width, stride, projected=False)
    return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(blocks - 1)))


def _initialize_convolutions(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResNet(nn.Module):
    """Stages of basic blocks, each halving resolution and doubling width. (N, C, H, W) to logits (N, classes).

    Images up to 64 pixels per side get a 3x3 stem without stride or pooling, as in the paper's CIFAR networks.
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
        _initialize_convolutions(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        h_NC = self.blocks(self.stem(x_NCHW)).mean((2, 3))
        return self.head(h_NC)  # type: ignore[no-any-return]
