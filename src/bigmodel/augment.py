"""Random changes of images, a whole batch at a time on the device, keyed by (seed, step): no per-sample Python."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.ranges import NonNegativeInt
from bigmodel.seeds import derive


@dataclass(frozen=True)
class Augment:
    """`flip`: mirror half the images left to right. `crop`: pad by so many black pixels, then cut out at random."""

    flip: bool = False
    crop: NonNegativeInt = 0

    def __call__(self, pixels_NCHW: Tensor, seed: int, step: int) -> Tensor:
        """The same shape and dtype, new memory where anything changed."""
        if not (self.flip or self.crop):
            return pixels_NCHW
        device = pixels_NCHW.device
        generator = torch.Generator(device).manual_seed(derive(seed, "augment", step))
        count, _, height, width = pixels_NCHW.shape
        if self.flip:
            mirrored_N = torch.rand(count, device=device, generator=generator) < 0.5
            pixels_NCHW = torch.where(mirrored_N[:, None, None, None], pixels_NCHW.flip(-1), pixels_NCHW)
        if self.crop:
            offsets_2N = torch.randint(2 * self.crop + 1, (2, count), device=device, generator=generator)
            padded = F.pad(pixels_NCHW, (self.crop,) * 4)
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: N, C, offset, offset, H, W
            pixels_NCHW = windows[torch.arange(count, device=device), :, offsets_2N[0], offsets_2N[1]]
        return pixels_NCHW
