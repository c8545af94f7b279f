"""Pictures of any size in one folder a class: `root/class/picture`, or `root/{train,val,test}/class/picture`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from bigmodel.augment import Augment
from bigmodel.datasets.class_folders import class_folders
from bigmodel.datasets.files import SUFFIXES, ImageFiles, check_channels
from bigmodel.datasets.images import ImageDataset
from bigmodel.ranges import BelowOne, Positive, PositiveInt


def image_folder(
    root: str,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    val_fraction: BelowOne,
    augment: Augment,
    test_fraction: BelowOne = 0.0,
    num_classes: PositiveInt | None = None,
) -> ImageDataset:
    """Images of `input_shape`, in grey (1) or RGB (3); the classes are the sorted names of the training folders.

    Without a `val` folder, `val_fraction` of the training pictures is held out. Without `test`, `test_fraction` of
    them is the test split, the same for every seed. Hidden files and what is no picture by its suffix are passed over.

    Raises:
        DataError: a folder is missing or holds no pictures, or a class is unknown in training.
    """
    check_channels(input_shape)
    found = class_folders(root, SUFFIXES, "pictures", test_fraction)
    return ImageDataset(
        classes=found.classes,
        input_shape=input_shape,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        augment=augment,
        sources={
            split: partial(ImageFiles, paths, torch.tensor(labels), input_shape)
            for split, (paths, labels) in found.splits.items()
        },
        sizes={split: len(paths) for split, (paths, _) in found.splits.items()},
        fingerprint=found.fingerprint,
    ).verify(num_classes)
