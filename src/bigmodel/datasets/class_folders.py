"""Files in one folder a class: `root/class/file`, or `root/{train,val,test}/class/file`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from bigmodel.datasets.files import fingerprint
from bigmodel.datasets.splits import held_out
from bigmodel.errors import DataError


@dataclass(frozen=True)
class ClassFolders:
    """The sorted names of the training folders, and of each split the files with their labels, class by class."""

    classes: Sequence[str]
    splits: Mapping[str, tuple[Sequence[str], Sequence[int]]]
    fingerprint: str


def class_folders(root: str, suffixes: Set[str], what: str, test_fraction: float = 0.0) -> ClassFolders:
    """All files with one of the suffixes; `what` they are, as "pictures", is for messages. Hidden ones and others are
    passed over. Without a `test` folder, `test_fraction` of the training files is one, the same for every seed.

    Raises:
        DataError: a folder is missing or holds no such files, or a class is unknown in training.
    """
    top = Path(root).expanduser().absolute()
    if not top.is_dir():
        raise DataError(
            f"dataset.root: no folder {top}; it needs one folder a class, or train/, val/ and test/ of such"
        )
    train = top / "train"
    folders = {"train": train if train.is_dir() else top}
    if train.is_dir():
        folders |= {split: top / split for split in ("val", "test") if (top / split).is_dir()}
    classes = _class_names(folders["train"])
    if not classes:
        raise DataError(
            f"dataset.root: {folders['train']} holds no class folders; it needs one folder of {what} a class"
        )
    splits = {split: _listed(folder, classes, suffixes, what) for split, folder in folders.items()}
    entries = [
        (os.path.relpath(path, folders[split].parent), os.stat(path).st_size)
        for split, (paths, _) in splits.items()
        for path in paths
    ]
    if "test" not in splits and test_fraction:
        paths, labels = splits["train"]
        for split, numbers in zip(("train", "test"), held_out(len(paths), test_fraction), strict=True):
            if len(numbers):  # of a few files the fraction may be none
                splits[split] = [paths[n] for n in numbers.tolist()], [labels[n] for n in numbers.tolist()]
    return ClassFolders(classes, splits, fingerprint(entries))


def _class_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _listed(folder: Path, classes: Sequence[str], suffixes: Set[str], what: str) -> tuple[list[str], list[int]]:
    present = _class_names(folder)
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise DataError(
            f"{folder}: the training data has no class {', '.join(unknown)}; its classes: {', '.join(classes)}"
        )
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = list(_below(folder / name, suffixes)) if name in present else []
        if name in present and not found:
            sought = " ".join(sorted(suffixes))
            raise DataError(f"{folder / name}: holds no {what} ({sought}); add some or remove the folder")
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"{folder}: holds no class folders; it needs the classes of the training data")
    return paths, labels


def _below(folder: Path, suffixes: Set[str]) -> Iterator[str]:
    for directory, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield os.path.join(directory, name)
