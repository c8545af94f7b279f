"""Settings of the random changes of training batches, applied on the device to whole batches; see `augmentations`.

Each change draws from a key of its own, (seed, name, step), so switching one on does not change the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.constraints import BetaShape, Fraction, NonNegativeInt
from bigmodel.datasets.images import augmentations
from bigmodel.seeds import derive


@dataclass(frozen=True)
class ImageAugment:
    """Random changes of training images; 0 or false switches one off.

    `flip`: mirror left to right half the images of each step, or `alternating` (Jordan 2024): half the images in the
    first epoch, the other half in the next, and so on in turns, so that two epochs show each image both ways.
    `crop`: pad by this number of pixels, black or mirrored (`padding`), then cut a random part of the image's size.
    `random_resized_crop`: the smallest share of the area, from which on a part of random size, place and shape (3:4 to
    4:3) is cut out and brought to the image's size, as 0.35 (Szegedy et al. 2015); the part is of the image as it was
    resized for the model, not of the file.
    `colour`: strength of `augmentations.colour`. `cutout`: side of a square that is hidden.
    `mixup`, `cutmix`: the weight of two blended samples follows Beta(a, a) with this a, one for each batch; where both
    are set, a coin chooses for each batch.
    """

    flip: bool | Literal["alternating"] = False
    crop: NonNegativeInt = 0
    padding: Literal["zero", "reflect"] = "zero"
    colour: Fraction = 0.0
    cutout: NonNegativeInt = 0
    mixup: BetaShape = 0.0
    cutmix: BetaShape = 0.0
    random_resized_crop: Fraction = 0.0

    @property
    def mixing(self) -> list[str]:
        """Those of `mixup` and `cutmix` that are on; with one of them, targets become class probabilities."""
        return [name for name in ("mixup", "cutmix") if getattr(self, name)]

    def problems(self, input_shape: Sequence[int], num_classes: int) -> list[str]:
        """Return a line for each setting that such images do not allow, beginning with the setting's name."""
        shape = "x".join(map(str, input_shape))
        side = min(input_shape[1:])
        problems = []
        if self.crop >= side:
            problems.append(f"crop: must be less than the side of {shape} images, not {self.crop}")
        if self.cutout > side:
            problems.append(f"cutout: a square of {self.cutout} pixels is larger than {shape} images")
        if num_classes < 2:
            problems += [f"{name}: the data has no second class to mix with; set it to 0" for name in self.mixing]
        return problems

    def augment_pixels(self, pixels_NCHW: Tensor, seed: int, step: int, epoch: int, samples_N: Tensor) -> Tensor:
        """Change uint8 pixels before normalization; the result has the same shape, and new memory if anything changed.

        `samples_N` are sample indices, int64 on the CPU.
        """
        if self.flip:
            pixels_NCHW = augmentations.flip(pixels_NCHW, self._flip(pixels_NCHW, seed, step, epoch, samples_N))
        if self.crop:
            generator = _generator(pixels_NCHW, seed, "crop", step)
            pixels_NCHW = augmentations.crop(pixels_NCHW, self.crop, self.padding, generator)
        if self.random_resized_crop:
            generator = _generator(pixels_NCHW, seed, "random_resized_crop", step)
            pixels_NCHW = augmentations.random_resized_crop(pixels_NCHW, self.random_resized_crop, generator)
        if self.colour:
            generator = _generator(pixels_NCHW, seed, "colour", step)
            pixels_NCHW = augmentations.colour(pixels_NCHW, self.colour, generator)
        return pixels_NCHW

    def augment_inputs(
        self, inputs_NCHW: Tensor, labels_N: Tensor, num_classes: int, seed: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """Change normalized inputs in place; return them with labels (N,), or class probabilities (N, C) if mixed."""
        if self.cutout:
            augmentations.cutout(inputs_NCHW, self.cutout, _generator(inputs_NCHW, seed, "cutout", step))
        if not self.mixing:
            return inputs_NCHW, labels_N
        name = random.Random(derive(seed, "mix", step)).choice(self.mixing)
        draw = random.Random(derive(seed, name, step))
        shape = getattr(self, name)
        weight = draw.betavariate(shape, shape)
        probs_NC = F.one_hot(labels_N, num_classes).float()
        if name == "mixup":
            return augmentations.mixup(inputs_NCHW, probs_NC, weight)
        return augmentations.cutmix(inputs_NCHW, probs_NC, weight, draw)

    def _flip(self, pixels_NCHW: Tensor, seed: int, step: int, epoch: int, samples_N: Tensor) -> Tensor:
        if self.flip == "alternating":
            coins = augmentations.hash_coin_flips(samples_N, derive(seed, "flip"))
            return (coins ^ (epoch % 2 == 1)).to(pixels_NCHW.device, non_blocking=True)
        generator = _generator(pixels_NCHW, seed, "flip", step)
        return torch.rand(len(pixels_NCHW), device=pixels_NCHW.device, generator=generator) < 0.5


def _generator(tensor: Tensor, seed: int, purpose: str, step: int) -> torch.Generator:
    return torch.Generator(tensor.device).manual_seed(derive(seed, purpose, step))
