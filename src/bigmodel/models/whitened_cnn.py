"""Convolutional network that trains in seconds: whitened patches, three blocks of two or three convolutions.

The architecture is that of Jordan's 94 % and 96 % speed records on CIFAR-10 (2024, arXiv:2404.00498): the first layer
is computed from the data and fixed, convolutions start as partial identities, norms have no scale, and test-time
augmentation averages the logits over views of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import Positive, PositiveInt

__all__ = ["WhitenedCNN"]

_PATCH = 2  # pixels per side of a whitened patch
_EPSILON = 5e-4  # added to variances, which are tiny along the last directions


class WhitenedCNN(nn.Module):
    """Normalized images (N, C, H, W) to logits (N, classes); needs 25 pixels per side or more.

    - A block has `depth` convolutions; with 3, a residual connection spans the last two.
    - `init_from_batch` must be called before training.
    - In evaluation mode the logits are a weighted mean over `views`: the image, also its mirror image, or also both
      shifted by a pixel along the diagonal.

    Raises:
        ValueError: the images are too small for three halvings and the last pooling.
    """

    def __init__(
        self,
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        num_classes: PositiveInt,
        widths: Sequence[PositiveInt] = (64, 256, 256),
        views: Literal["one", "mirrored", "shifted"] = "shifted",
        norm_momentum: Positive = 0.4,
        depth: Literal[2, 3] = 2,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        if min(height, width) < 3 * 2 ** len(widths) + _PATCH - 1:
            raise ValueError(f"input_shape: {height}x{width} pixels are too few for {len(widths)} halvings")
        self._views = views
        patch = channels * _PATCH**2
        self.whiten = nn.Conv2d(channels, 2 * patch, _PATCH)
        self.whiten.weight.requires_grad_(False)
        ins = (2 * patch, *widths[:-1])
        self.blocks = nn.Sequential(
            nn.GELU(), *(_block(width_in, out, norm_momentum, depth) for width_in, out in zip(ins, widths, strict=True))
        )
        self.pool = nn.MaxPool2d(3)
        with torch.no_grad():
            last = self.pool(self.blocks(self.whiten(torch.zeros(1, *input_shape))))
        self.head = nn.Linear(last.numel(), num_classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / last.numel())  # small: the convolutions learn first
        self.reset_norms()

    def reset_norms(self) -> None:
        """Reset the norms' running statistics, which the size probe in `__init__` changed."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()

    def init_from_batch(self, inputs: Tensor) -> None:
        """Compute the first layer from training images (N, C, H, W).

        It projects patches onto the eigenvectors of their covariance, scaled to unit variance, in both signs.
        """
        patches = F.unfold(inputs.float(), _PATCH).transpose(1, 2).flatten(0, 1)  # (patches, values)
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (directions / (variances + _EPSILON).sqrt()).T.reshape(-1, *self.whiten.weight.shape[1:])
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if self.training or self._views == "one":
            return self._logits(x_NCHW)
        return sum(weight * self._logits(view) for weight, view in _views(x_NCHW, self._views == "shifted"))  # type: ignore[return-value]

    def _logits(self, x_NCHW: Tensor) -> Tensor:
        h_NC = self.pool(self.blocks(self.whiten(x_NCHW))).flatten(1)
        return self.head(h_NC)  # type: ignore[no-any-return]


def _block(width_in: int, width: int, norm_momentum: float, depth: int) -> nn.Sequential:
    first = [_dirac_conv(width_in, width), nn.MaxPool2d(2), _norm(width, norm_momentum), nn.GELU()]
    second = [_dirac_conv(width, width), _norm(width, norm_momentum)]
    if depth == 2:
        return nn.Sequential(*first, *second, nn.GELU())
    third = [_dirac_conv(width, width), _norm(width, norm_momentum)]
    return nn.Sequential(*first, _Residual(*second, nn.GELU(), *third), nn.GELU())


class _Residual(nn.Sequential):
    """Layers with a residual connection around them."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW + super().forward(x_NCHW)  # type: ignore[no-any-return, no-untyped-call]


def _dirac_conv(width_in: int, width: int) -> nn.Conv2d:
    convolution = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight[:width_in])  # the first channels pass their input through
    return convolution


def _norm(width: int, momentum: float) -> nn.BatchNorm2d:
    """Return a batch norm without scale, which the normalized weights of the next convolution make redundant."""
    norm = nn.BatchNorm2d(width, eps=1e-12, momentum=momentum)
    norm.weight.requires_grad_(False)
    return norm


def _views(x_NCHW: Tensor, shifted: bool) -> Iterator[tuple[float, Tensor]]:
    """Yield views with weights that sum to one; half of the weight is on views that are not mirrored."""
    height, width = x_NCHW.shape[2:]
    images = [(1.0, x_NCHW)]
    if shifted:
        padded = F.pad(x_NCHW, (1, 1, 1, 1), "reflect")
        images = [(0.5, x_NCHW), (0.25, padded[:, :, :height, :width]), (0.25, padded[:, :, 2:, 2:])]
    for weight, image in images:
        yield weight / 2, image
        yield weight / 2, image.flip(-1)
