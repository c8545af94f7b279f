"""Pictures of any size in one folder a class: `root/class/picture`, or `root/{train,val,test}/class/picture`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch

from bigmodel.constraints import BelowOne, Positive, PositiveInt
from bigmodel.datasets.files.class_counts import held_out_whole
from bigmodel.datasets.files.class_folders import class_folders
from bigmodel.datasets.images.augment import Augment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.picture_check import broken_pictures, is_picture, looks, settled, suffixes
from bigmodel.datasets.images.picture_files import ImageFiles, check_channels
from bigmodel.datasets.images.pixels import PixelRules


def image_folder(
    root: str,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    val_fraction: BelowOne,
    augment: Augment,
    test_fraction: BelowOne = 0.0,
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
    check = partial(broken_pictures, decode=broken == "skip")
    found = class_folders(root, suffixes(), "pictures", test_fraction, is_picture, check, broken)
    chosen, notes = settled(value_range, found.splits["train"][0])
    rules = PixelRules(chosen, background)
    if "val" not in found.splits:
        notes += held_out_whole(found.classes, found.splits["train"][1], val_fraction)
    return ImageDataset(
        classes=found.classes,
        input_shape=input_shape,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        augment=augment,
        sources={
            split: partial(ImageFiles, paths, torch.tensor(labels), input_shape, rules)
            for split, (paths, labels) in found.splits.items()
        },
        sizes={split: len(paths) for split, (paths, _) in found.splits.items()},
        fingerprint=found.fingerprint,
        rules=rules,
        notes=[*found.notes, *notes, *looks(found.splits, found.classes, input_shape, rules)],
    ).verify(num_classes)
