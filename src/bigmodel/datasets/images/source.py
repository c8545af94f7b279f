"""Where the pixels and labels of a split of images come from, and how they become inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from bigmodel.datasets.images.augmentations import channels_last, select_images


class ImageSource(Protocol):
    """Samples of a split: labels in memory, pixels on demand. Picklable, so that worker processes can decode."""

    @property
    def labels_N(self) -> Tensor:
        """int64 (N,), or float32 (N, K) of a target that is no class."""

    def pixels(self, indices: Tensor | None = None) -> Tensor:
        """uint8 pixels (N, C, H, W) of the samples with these indices, or of all, then without a copy if possible."""


@dataclass(frozen=True)
class InMemoryImages:
    """Split in memory: uint8 pixels (N, C, H, W) and int64 labels (N,)."""

    pixels_NCHW: Tensor
    labels_N: Tensor

    def __call__(self) -> InMemoryImages:
        """Return itself: `ImageDataset.sources` are callables that open a split, and this one is open."""
        return self

    def pixels(self, indices: Tensor | None = None) -> Tensor:
        return self.pixels_NCHW if indices is None else select_images(self.pixels_NCHW, indices)


def normalize(pixels_NCHW: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Convert uint8 pixels to float32: scale to [0, 1], subtract the mean, divide by std; both (C, 1, 1)."""
    scale = 1 / (255 * std)
    shift = mean / std
    if not channels_last(pixels_NCHW):
        return pixels_NCHW.float().mul_(scale).sub_(shift)
    count, channels, height, width = pixels_NCHW.shape  # by rows: by channels it is slow here
    rows = pixels_NCHW.permute(0, 2, 3, 1).view(count * height, width * channels).float()
    rows.mul_(scale.flatten().repeat(width)).sub_(shift.flatten().repeat(width))
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
