"""Recognize the names of training, validation and test splits, of folders and in columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bigmodel.datasets.files.folder_walk import is_hidden
from bigmodel.errors import DataError

SPLITS = ("train", "val", "test")
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
}
_EITHER = ("eval", "evaluation")  # validation to some, the test to others
_SHOWN = 8


def split_named(name: str) -> str | None:
    """`train`, `val` or `test` for the usual names in any case, as `Training` or `valid_set`; `eval` for one of the
    last two; None for others.
    """
    plain = re.sub(r"[ _-]?(sets?|data|images|imgs)$", "", name.strip().lower())
    return "eval" if plain in _EITHER else _NAMES.get(plain)


def _hints_at(name: str) -> str | None:
    """Return the split that a part of the name says, as in `seg_train`, `val2017` or `testA`; None if no part does."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return next((_NAMES[part.lower()] for part in parts if part.lower() in _NAMES), None)


def split_folders(top: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split, or `top` itself for training where it holds the classes; and lines about the
    others.

    Raises:
        DataError: two folders could be the same split, or it is not clear whether the folders are splits or classes.
    """
    names = folder_names(top)
    splits = {name: split for name in names if (split := split_named(name)) is not None}
    training = [name for name, split in splits.items() if split == "train"]
    if not training or (len(splits) < len(names) and not any(folder_names(top / name) for name in training)):
        return {"train": top}, _refuse_unclear(top, names, splits)
    found: dict[str, Path] = {}
    for name, split in _resolve_eval(top, splits).items():
        if split in found:
            raise DataError(
                f"dataset.root: {top} holds {found[split].name}/ and {name}/, and both name the {split} split; keep one"
            )
        found[split] = top / name
    bare = [path for path in found.values() if not folder_names(path)]
    if bare:
        raise DataError(
            f"{bare[0]}: holds no class folders; it needs one folder per class. Without known classes, files are for "
            "bigmodel-predict: move them out of dataset.root"
        )
    found = {split: found[split] for split in SPLITS if split in found}
    renamed = [f"{path.name}/ is the {split} split" for split, path in found.items() if path.name != split]
    unused = [f"{name}/" for name in names if name not in splits]
    return found, [*renamed, *([f"not used: {_some(unused)}, next to the splits"] if unused else [])]


def folder_names(folder: Path) -> list[str]:
    """Return the sorted names of the folders in it that are not hidden."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _resolve_eval(top: Path, splits: dict[str, str]) -> dict[str, str]:
    """Return the same with `eval` as validation or test, whichever is missing."""
    missing = [split for split in ("val", "test") if split not in splits.values()]
    either = [name for name, split in splits.items() if split == "eval"]
    if either and (len(missing) != 1 or len(either) > 1):
        raise DataError(f"dataset.root: {top / either[0]} may be validation or test; rename it to val or test")
    return {name: missing[0] if split == "eval" else split for name, split in splits.items()}


def _refuse_unclear(top: Path, names: Sequence[str], splits: dict[str, str]) -> list[str]:
    """Return lines about what looks like a split and is taken for a class.

    Raises:
        DataError: the folders are splits without training data, splits lie inside the classes, or in one folder more.
    """
    if splits and len(splits) == len(names):
        raise DataError(f"dataset.root: {top} holds {_some(names)} and no train; it needs train/ with a folder a class")
    for name in splits:
        below = folder_names(top / name)
        if set(below) & (set(names) - {name}):
            raise DataError(
                f"dataset.root: {top / name} looks like a split and lies next to the classes {_some(below)}; "
                "move these into train/"
            )
    for name in names:
        inside = {split_named(below) for below in folder_names(top / name)} - {None}
        if len(inside) > 1:
            place = top / name
            if len(names) == 1:
                raise DataError(f"dataset.root: {top} holds only {name}/, which holds splits; set dataset.root={place}")
            raise DataError(
                f"dataset.root: {place} holds splits; they go above the classes: train/{name}, test/{name} and so on"
            )
    if len(names) == 1 and len(folder_names(top / names[0])) > 1:
        place = top / names[0]
        raise DataError(
            f"dataset.root: {top} holds only {names[0]}/, which holds {_some(folder_names(place))}; "
            f"set dataset.root={place} if these are the classes"
        )
    hinted = [_hints_at(name) for name in names]
    if "train" in hinted and None not in hinted and len(set(hinted)) > 1:
        raise DataError(
            f"dataset.root: {top} holds {_some(names)}, which look like splits; name them train, val and test, or make "
            "links of these names to them"
        )
    return _warn_same_folders(top, names) + [
        f"warning: {name}/ is taken for a class, not for the {split} split" for name, split in splits.items()
    ]


def _warn_same_folders(top: Path, names: Sequence[str]) -> list[str]:
    """No line, or a warning that every one of several folders holds the same folders, as splits of any name do."""
    inside = {tuple(folder_names(top / name)) for name in names}
    if len(names) < 2 or len(inside) > 1 or any(len(below) < 2 for below in inside):
        return []
    return [
        f"warning: {_some(names)} are taken for classes, and each holds {_some(*inside)}: if these are the classes, "
        "name the folders above them train, val and test"
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
