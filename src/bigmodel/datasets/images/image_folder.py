"""Pictures of any size in one folder a class: `root/class/picture`, or `root/{train,val,test}/class/picture`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch

from bigmodel.constraints import Positive, PositiveInt, ProperFraction
from bigmodel.datasets.files.class_counts import warn_held_out_classes
from bigmodel.datasets.files.class_folders import find_class_folders
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.picture_check import (
    find_broken,
    is_picture,
    readable_suffixes,
    resolve_value_range,
    warn_uniform_pictures,
)
from bigmodel.datasets.images.picture_files import PictureFiles, check_channels
from bigmodel.datasets.images.pixels import PixelRules


def image_folder(
    root: str,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    val_fraction: ProperFraction,
    augment: ImageAugment,
    test_fraction: ProperFraction = 0.0,
    num_classes: PositiveInt | None = None,
    value_range: Literal["auto", "type"] | tuple[float, float] | None = None,
    background: Literal["white", "black"] | tuple[int, int, int] | None = None,
    broken: Literal["refuse", "skip"] = "refuse",
) -> ImageDataset:
    """Images of `input_shape`, in grey (1) or RGB (3); the classes are the sorted names of the training folders.

    Without a `val` folder, `val_fraction` of the training pictures is held out. Without `test`, `test_fraction` of
    them is the test split, the same for every seed. Hidden files and what is no picture are passed over and counted.
    `value_range`, if not "auto", and `background` are those of `PixelRules`.

    Raises:
        DataError: a folder is missing or holds no pictures, a class is unknown in training, or pictures are broken.
    """
    check_channels(input_shape)
    check = partial(find_broken, decode=broken == "skip")
    found = find_class_folders(root, readable_suffixes(), "picture", test_fraction, is_picture, check, broken)
    chosen, notes = resolve_value_range(value_range, background, found.splits["train"][0])
    rules = PixelRules(chosen, background)
    if "val" not in found.splits:
        notes += warn_held_out_classes(found.classes, found.splits["train"][1], val_fraction)
    return ImageDataset(
        classes=found.classes,
        input_shape=input_shape,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        augment=augment,
        sources={
            split: partial(PictureFiles, paths, torch.tensor(labels), input_shape, rules)
            for split, (paths, labels) in found.splits.items()
        },
        sizes={split: len(paths) for split, (paths, _) in found.splits.items()},
        files={split: paths for split, (paths, _) in found.splits.items()},
        fingerprint=found.fingerprint,
        rules=rules,
        notes=[*found.notes, *notes, *warn_uniform_pictures(found.splits, found.classes, input_shape, rules)],
    ).verify(num_classes)
