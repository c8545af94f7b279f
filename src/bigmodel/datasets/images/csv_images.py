"""Pictures listed in a CSV file: each row has the path of a picture, its target, and its split."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bigmodel.constraints import Positive, PositiveInt, ProperFraction
from bigmodel.datasets.files import class_counts
from bigmodel.datasets.files.published import fingerprint_files
from bigmodel.datasets.files.split_names import SPLITS
from bigmodel.datasets.files.table_files import raise_row_errors, sorted_labels
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.picture_check import resolve_value_range, warn_uniform_pictures
from bigmodel.datasets.images.picture_files import PictureFiles, check_channels
from bigmodel.datasets.images.picture_rows import PictureRow, PictureTable, rows_without_broken
from bigmodel.datasets.images.picture_targets import (
    LabelsTarget,
    NumberTarget,
    Target,
    describe_label_counts,
    no_rows_error,
    number_problem,
    refuse_lists,
    reject_measurements,
    split_names,
)
from bigmodel.datasets.images.pixels import PixelRules
from bigmodel.datasets.loading.splits import holdout_split
from bigmodel.errors import ConfigError


def csv_images(
    file: str,
    image_column: str,
    label_column: str | Sequence[str],
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    val_fraction: ProperFraction,
    augment: ImageAugment,
    root: str | None = None,
    split_column: str | None = None,
    num_classes: PositiveInt | None = None,
    target_type: Literal["auto", "class", "number", "labels"] = "class",
    label_separator: str | None = None,
    value_range: Literal["auto", "type"] | tuple[float, float] | None = None,
    background: Literal["white", "black"] | tuple[int, int, int] | None = None,
    broken: Literal["refuse", "skip"] = "refuse",
    outputs: PositiveInt | None = None,
    target_std: Positive | None = None,
    labels: Sequence[str] | None = None,
    encoding: str | None = None,
) -> ImageDataset:
    """Images of `input_shape`, in grey (1) or RGB (3). Paths are relative to `root`, or else to the CSV's folder.

    Without `split_column` every row is for training; without val rows, `val_fraction` of the training rows is held out.
    The target is a class, a number, or several labels: columns of 1, 0 or nothing, or names in one cell between
    which `label_separator` stands. Classes and names are the sorted ones of the training rows, sorted as numbers if all
    are whole numbers. "auto" is a class, unless the values look measured. `value_range`, if not "auto", and
    `background` are those of `PixelRules`. `broken` applies to pictures that are missing or unreadable.

    `outputs`, `target_std` and `labels`, if not None, must be the data's.

    Raises:
        ConfigError: the columns do not go with `target_type`.
        DataError: the CSV is missing or has bad rows, each named by file, line and column, or pictures are broken.
    """
    check_channels(input_shape)
    columns = [label_column] if isinstance(label_column, str) else list(label_column)
    _check_columns(columns, target_type, label_separator)
    table = Path(file).expanduser().absolute()
    folder = table.parent if root is None else Path(root).expanduser().absolute()
    pictures = PictureTable(table, folder, image_column, columns, split_column, target_type == "labels", encoding)
    listed, seen = pictures.rows(broken)
    rows, skipped, notes = rows_without_broken(listed, broken)
    training = [row for row in rows if row.split == "train"]
    if not training:
        raise no_rows_error(table)
    _check_cells(rows, training, columns[0], target_type, table)
    kept = [training[n] for n in holdout_split(len(training), 0.0 if _has(rows, "val") else val_fraction)[0].tolist()]
    target = _target(columns, kept if target_type == "number" else training, target_type, label_separator)
    classes = [] if target is not None else sorted_labels(row.cells[0] for row in training)
    raise_row_errors(_misfits(rows, columns, classes, target), table)

    encoded = {split: _encode([row for row in rows if row.split == split], classes, target) for split in SPLITS}
    paths = {split: [row.path for row in rows if row.split == split] for split in SPLITS if _has(rows, split)}
    chosen, lines = resolve_value_range(value_range, background, paths["train"])
    rules = PixelRules(chosen, background)
    numbers = {split: encoded[split].tolist() if target is None else [0] * len(paths[split]) for split in paths}
    pairs = {split: (paths[split], numbers[split]) for split in paths}
    notes += lines
    notes += _class_notes(classes, numbers, val_fraction) if target is None else []
    notes += describe_label_counts(target.names, encoded["train"]) if isinstance(target, LabelsTarget) else []
    return ImageDataset(
        classes=classes,
        input_shape=input_shape,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        augment=augment,
        sources={split: partial(PictureFiles, paths[split], encoded[split], input_shape, rules) for split in paths},
        sizes={split: len(paths[split]) for split in paths},
        files=paths,
        fingerprint=fingerprint_files(
            (f"{row.split} {' '.join(row.cells)} {os.path.relpath(row.path, folder)}", _size(row, skipped))
            for row in listed
        ),
        rules=rules,
        target=target,
        notes=[*seen, *notes, *warn_uniform_pictures(pairs, classes or ["this"], input_shape, rules)],
    ).verify(num_classes)


def _check_cells(
    rows: Sequence[PictureRow], training: Sequence[PictureRow], column: str, target_type: str, table: Path
) -> None:
    """Raise DataError where targets are not of the type: lists or measurements for classes, texts for numbers."""
    if target_type in ("auto", "class"):
        refuse_lists(((row.location, row.cells[0]) for row in rows), column, table.name)
    if target_type == "auto":
        reject_measurements(column, [row.cells[0] for row in training])
    if target_type == "number":
        wrong = ((row, number_problem(row.cells[0])) for row in rows)
        raise_row_errors([f"{row.location}: column '{column}': {line}" for row, line in wrong if line], table)


def _class_notes(classes: Sequence[str], numbers: Mapping[str, Sequence[int]], val_fraction: float) -> list[str]:
    """Return the sizes of the classes in each split, and warnings of classes that look like mistakes."""
    notes = class_counts.describe_counts("picture", classes, numbers)
    notes += class_counts.stand_ins(classes)
    if "val" not in numbers:
        notes += class_counts.warn_held_out_classes(classes, numbers["train"], val_fraction)
    return notes


def _check_columns(columns: Sequence[str], target_type: str, separator: str | None) -> None:
    if target_type == "labels":
        if len(columns) == 1 and separator is None:
            raise ConfigError(
                f"dataset.label_separator: needs the text between two labels in the column '{columns[0]}', as "
                "dataset.label_separator='|'; or give a column for each label: dataset.label_column=[cat,dog]"
            )
        if len(columns) > 1 and separator is not None:
            raise ConfigError(
                "dataset.label_separator: applies to labels in one column, got several columns; leave it out"
            )
    elif len(columns) != 1:
        raise ConfigError(
            f"dataset.label_column: {len(columns)} columns hold several labels; set dataset.target_type=labels "
            "task=multi_label"
        )
    elif separator is not None:
        raise ConfigError("dataset.label_separator: applies to several labels only; set dataset.target_type=labels")


def _size(row: PictureRow, skipped: Set[str]) -> int:
    return -1 if row.path in skipped else os.stat(row.path).st_size


def _has(rows: Sequence[PictureRow], split: str) -> bool:
    return any(row.split == split for row in rows)


def _target(
    columns: Sequence[str], training: Sequence[PictureRow], target_type: str, separator: str | None
) -> Target | None:
    """Fit the target encoder to the training rows; None for a class."""
    if target_type == "number":
        return NumberTarget.fit(columns[0], [row.cells[0] for row in training])
    if target_type != "labels":
        return None
    if separator is None:
        return LabelsTarget(columns)
    return LabelsTarget(
        sorted_labels(name for row in training for name in split_names(row.cells[0], separator)), separator
    )


def _misfits(
    rows: Sequence[PictureRow], columns: Sequence[str], classes: Sequence[str], target: Target | None
) -> list[str]:
    known = set(classes)
    problems = []
    for row in rows:
        if isinstance(target, LabelsTarget):
            wrong = target.problem(row.cells)
        else:
            wrong = None if target or row.cells[0] in known else f"no training row has the label '{row.cells[0]}'"
        if wrong:
            problems.append(f"{row.location}: column '{columns[0]}': {wrong}")
    return problems


def _encode(rows: Sequence[PictureRow], classes: Sequence[str], target: Target | None) -> Tensor:
    if isinstance(target, NumberTarget):
        return target.encode([row.cells[0] for row in rows])
    if isinstance(target, LabelsTarget):
        return target.encode([row.cells for row in rows])
    numbers = {label: number for number, label in enumerate(classes)}
    return torch.tensor([numbers[row.cells[0]] for row in rows], dtype=torch.int64)
