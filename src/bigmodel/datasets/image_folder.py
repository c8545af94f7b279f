"""Pictures of any size in one folder a class: `root/class/picture`, or `root/{train,val,test}/class/picture`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from bigmodel.augment import Augment
from bigmodel.datasets.files import SUFFIXES, ImageFiles, check_channels, fingerprint
from bigmodel.datasets.images import ImageDataset, Source
from bigmodel.errors import DataError
from bigmodel.ranges import BelowOne, Positive, PositiveInt


def image_folder(
    root: str,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    val_fraction: BelowOne,
    augment: Augment,
    num_classes: PositiveInt | None = None,
) -> ImageDataset:
    """Images of `input_shape`, in grey (1) or RGB (3); the classes are the sorted names of the training folders.

    Without a `val` folder, `val_fraction` of the training pictures is held out; without `test` there is no test split.
    Hidden files and what is no picture by its suffix are passed over.

    Raises:
        DataError: a folder is missing or holds no pictures, or a class is unknown in training.
    """
    check_channels(input_shape)
    top = Path(root).expanduser().absolute()
    if not top.is_dir():
        raise DataError(
            f"dataset.root: no folder {top}; it needs one folder a class, or train/, val/ and test/ of such"
        )
    train = top / "train"
    folders = {"train": train if train.is_dir() else top}
    if train.is_dir():
        folders |= {split: top / split for split in ("val", "test") if (top / split).is_dir()}
    classes = _class_folders(folders["train"])
    if not classes:
        raise DataError(
            f"dataset.root: {folders['train']} holds no class folders; it needs one folder of pictures a class"
        )
    entries: list[tuple[str, int]] = []
    sources: dict[str, Callable[[], Source]] = {}
    sizes = {}
    for split, folder in folders.items():
        paths, labels = _listed(folder, classes, entries)
        sources[split] = partial(ImageFiles, paths, torch.tensor(labels), input_shape)
        sizes[split] = len(paths)
    return ImageDataset(
        classes=classes,
        input_shape=input_shape,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        augment=augment,
        sources=sources,
        sizes=sizes,
        fingerprint=fingerprint(entries),
    ).verify(num_classes)


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _listed(folder: Path, classes: Sequence[str], entries: list[tuple[str, int]]) -> tuple[list[str], list[int]]:
    """The pictures of a split with their labels, class by class; `entries` gets their names and sizes."""
    present = _class_folders(folder)
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise DataError(
            f"{folder}: the training data has no class {', '.join(unknown)}; its classes: {', '.join(classes)}"
        )
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = list(_pictures(folder / name)) if name in present else []
        if name in present and not found:
            suffixes = " ".join(sorted(SUFFIXES))
            raise DataError(f"{folder / name}: holds no pictures ({suffixes}); add some or remove the folder")
        for path in found:
            paths.append(path)
            entries.append((os.path.relpath(path, folder.parent), os.stat(path).st_size))
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"{folder}: holds no class folders; it needs the classes of the training data")
    return paths, labels


def _pictures(folder: Path) -> Iterator[str]:
    for directory, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(directory, name)
