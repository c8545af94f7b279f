"""Layers that several networks share."""

from __future__ import annotations

from torch import nn

__all__ = ["conv_bn_relu"]


def conv_bn_relu(width_in: int, width: int, size: int) -> nn.Sequential:
    """Return a convolution that keeps the resolution, batch norm and ReLU."""
    convolution = nn.Conv2d(width_in, width, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
