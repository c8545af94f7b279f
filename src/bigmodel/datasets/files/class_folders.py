"""Find files in one folder a class: `root/class/file`, or `root/{train,val,test}/class/file` by usual split names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bigmodel.datasets.files.class_counts import describe_counts
from bigmodel.datasets.files.folder_walk import describe_skipped, is_hidden, walk_files
from bigmodel.datasets.files.published import fingerprint_files
from bigmodel.datasets.files.split_names import folder_names, split_folders
from bigmodel.datasets.loading.splits import holdout_split, keep_each_class
from bigmodel.errors import DataError
from bigmodel.formatting import escape_control, format_count

_SHOWN = 10  # broken files in one report

Check = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class ClassFolders:
    """Sorted names of the training folders, and the files of each split with their labels, class by class.

    `notes` are lines about which folders became which split, and files left out.
    """

    classes: Sequence[str]
    splits: Mapping[str, tuple[Sequence[str], Sequence[int]]]
    fingerprint: str
    notes: Sequence[str] = field(default=())


def find_class_folders(
    root: str,
    suffixes: Set[str],
    what: str,
    test_fraction: float = 0.0,
    is_one: Callable[[str], bool] | None = None,
    check: Check | None = None,
    broken: Literal["refuse", "skip"] = "refuse",
) -> ClassFolders:
    """Find all files with one of the suffixes, or for which `is_one` holds; `what` names one of them in messages.

    Hidden files and others are passed over and counted. Without a `test` folder, `test_fraction` of the training files
    is the test split, the same for every seed. `check` returns the reason of each broken file, for all files at once:
    these are refused, or skipped, which changes the fingerprint.

    Raises:
        DataError: a folder is missing or holds no such files, a class is unknown in training, files are broken, or it
            is not clear what the folders are.
    """
    top = Path(root).expanduser().absolute()
    if not top.is_dir():
        raise DataError(
            f"dataset.root: no folder {top}; it needs one folder per class, or train/, val/ and test/ with one each"
        )
    folders, notes = split_folders(top)
    classes = folder_names(folders["train"])
    if not classes:
        raise DataError(
            f"dataset.root: {folders['train']} holds no class folders; it needs one folder of {what}s per class"
        )
    passed: Counter[str] = Counter()
    lister = _Lister(classes, suffixes, what, is_one, passed)
    splits = {split: lister.list_split(folder) for split, folder in folders.items()}
    for folder in folders.values():  # what lies beside the class folders
        for entry in folder.iterdir():
            if not entry.is_dir():
                passed["outside of the class folders"] += 1
            elif is_hidden(entry.name):
                passed["hidden"] += sum(len(names) for _, _, names in os.walk(entry))
    passed += Counter()  # drop what is zero
    notes += describe_skipped(passed)
    kept, skipped = _without_broken(splits, what, check, broken)
    notes += skipped
    entries = [
        (os.path.relpath(path, folders[split].parent), os.stat(path).st_size if path in there else -1)
        for split, (paths, _) in splits.items()
        for there in [set(kept[split][0])]
        for path in paths
    ]
    splits = kept
    if "test" not in splits and test_fraction:
        paths, labels = splits["train"]
        split_off = (numbers.tolist() for numbers in holdout_split(len(paths), test_fraction))
        train, test, back = keep_each_class(labels, *split_off)
        names = ", ".join(escape_control(classes[label]) for label in back[:_SHOWN])
        notes += [f"one of its {what}s stays in training of each of the rarest classes: {names}"] if back else []
        for split, numbers in (("train", train), ("test", test)):
            if numbers:  # of a few files the fraction may be none
                splits[split] = [paths[n] for n in numbers], [labels[n] for n in numbers]
    notes += describe_counts(what, classes, {split: labels for split, (_, labels) in splits.items()})
    return ClassFolders(classes, splits, fingerprint_files(entries), notes)


_Split = tuple[list[str], list[int]]


@dataclass(frozen=True)
class _Lister:
    classes: Sequence[str]
    suffixes: Set[str]
    what: str
    is_one: Callable[[str], bool] | None
    passed: Counter[str]

    def list_split(self, folder: Path) -> _Split:
        present = folder_names(folder)
        unknown = sorted(set(present) - set(self.classes))
        if unknown:
            raise DataError(
                f"{folder}: the training data has no class {', '.join(unknown)}; its classes: {', '.join(self.classes)}"
            )
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            if name not in present:
                continue
            before = self.passed.copy()
            found = list(walk_files(folder / name, self.suffixes, self.passed, self.is_one))
            if not found:
                there = "; ".join(describe_skipped(self.passed - before))
                reason = there or "it is empty"
                raise DataError(f"{folder / name}: holds no {self.what}s ({reason}); add some or remove the folder")
            paths += found
            labels += [label] * len(found)
        if not paths:
            raise DataError(f"{folder}: holds no class folders; it needs the classes of the training data")
        return paths, labels


def _without_broken(
    splits: dict[str, _Split], what: str, check: Check | None, broken: str
) -> tuple[dict[str, _Split], list[str]]:
    """Drop broken files from the splits, with a line for each."""
    if check is None:
        return splits, []
    problems = check([path for paths, _ in splits.values() for path in paths])
    if not problems:
        return splits, []
    lines, count = describe_broken(problems, what), format_count(len(problems), f"broken {what}")
    if broken == "refuse":
        raise DataError(
            *lines, f"{count}; mend or remove {'it' if len(problems) == 1 else 'them'}, or set dataset.broken=skip"
        )
    kept = {}
    for split, (paths, labels) in splits.items():
        pairs = [(path, label) for path, label in zip(paths, labels, strict=True) if path not in problems]
        if not pairs:
            raise DataError(*lines, f"{split}: every one of its {what}s is broken")
        kept[split] = [path for path, _ in pairs], [label for _, label in pairs]
    return kept, [f"warning: {count} skipped", *(f"skipped: {line}" for line in lines)]


def describe_broken(problems: Mapping[str, str], what: str) -> list[str]:
    """Return a line for each of the first broken files, and one that counts the others."""
    lines = [f"{path}: {problem}" for path, problem in [*problems.items()][:_SHOWN]]
    rest = len(problems) - _SHOWN
    return [*lines, f"and {format_count(rest, f'more broken {what}')}"] if rest > 0 else lines
