"""The UCI handwritten digits (Alpaydin & Kaynak 1998): 1,797 images of 8 x 8 pixels, CC BY 4.0, inside the package.

`scripts/make_digits.py` made the file: the test part of the UCI set, split once and for all into 1,438 training and 359
test images, stratified by class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file

from bigmodel.constraints import Positive, PositiveInt, ProperFraction
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.source import InMemoryImages

_FILE = Path(__file__).with_name("digits.safetensors")


def digits(
    num_classes: PositiveInt | None,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    val_fraction: ProperFraction,
    augment: ImageAugment,
) -> ImageDataset:
    """Images (1, 8, 8); ten classes.

    Raises:
        ConfigError: shape, number of classes, mean or std are not for these images.
    """
    if tuple(input_shape) != (1, 8, 8):
        raise ValueError(f"input_shape: the digits are 1x8x8, not {'x'.join(map(str, input_shape))}")
    tensors = load_file(_FILE)
    splits = {
        name: InMemoryImages(tensors[f"{name}_pixels"], tensors[f"{name}_labels"].long()) for name in ("train", "test")
    }
    return ImageDataset(
        classes=[str(digit) for digit in range(10)],
        input_shape=input_shape,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        augment=augment,
        sources=splits,
        sizes={name: len(arrays.labels_N) for name, arrays in splits.items()},
        fingerprint=f"sha256:{hashlib.sha256(_FILE.read_bytes()).hexdigest()}",
    ).verify(num_classes)
