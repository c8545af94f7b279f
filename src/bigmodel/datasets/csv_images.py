"""Pictures listed in a CSV file: a row a sample, with the picture's path, its label and, if wanted, its split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bigmodel.augment import Augment
from bigmodel.datasets.files import ImageFiles, check_channels, fingerprint
from bigmodel.datasets.images import ImageDataset, Source
from bigmodel.datasets.rows import Format, read, refuse, sorted_labels
from bigmodel.errors import DataError
from bigmodel.ranges import BelowOne, Positive, PositiveInt

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Row:
    place: str
    path: str
    label: str
    split: str


def csv_images(
    file: str,
    image_column: str,
    label_column: str,
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    mean: Sequence[float],
    std: Sequence[Positive],
    val_fraction: BelowOne,
    augment: Augment,
    root: str | None = None,
    split_column: str | None = None,
    num_classes: PositiveInt | None = None,
) -> ImageDataset:
    """Images of `input_shape`, in grey (1) or RGB (3). Paths are relative to `root`, or else to the CSV's folder.

    The classes are the sorted labels of the training rows, sorted as numbers if all are whole numbers. Without
    `split_column` every row is for training; without val rows, `val_fraction` of the training rows is held out.

    Raises:
        DataError: the CSV is missing or has bad rows; each is named by file, line and column.
    """
    check_channels(input_shape)
    table = Path(file).expanduser().absolute()
    folder = table.parent if root is None else Path(root).expanduser().absolute()
    problems: list[str] = []
    rows = list(_rows(table, folder, image_column, label_column, split_column, problems))
    classes = sorted_labels(row.label for row in rows if row.split == "train")
    numbers = {label: number for number, label in enumerate(classes)}
    problems += [
        f"{row.place}: column '{label_column}': no training row has the label '{row.label}'"
        for row in rows
        if row.label not in numbers
    ]
    refuse(problems, table)
    if not classes:
        raise DataError(f"{table}: holds no training rows")
    sources: dict[str, Callable[[], Source]] = {}
    sizes = {}
    for split in _SPLITS:
        chosen = [row for row in rows if row.split == split]
        if chosen:
            labels_N = torch.tensor([numbers[row.label] for row in chosen])
            sources[split] = partial(ImageFiles, [row.path for row in chosen], labels_N, input_shape)
            sizes[split] = len(chosen)
    return ImageDataset(
        classes=classes,
        input_shape=input_shape,
        mean=mean,
        std=std,
        val_fraction=val_fraction,
        augment=augment,
        sources=sources,
        sizes=sizes,
        fingerprint=fingerprint(
            (f"{row.split} {row.label} {os.path.relpath(row.path, folder)}", os.stat(row.path).st_size) for row in rows
        ),
    ).verify(num_classes)


def _rows(
    table: Path, folder: Path, image_column: str, label_column: str, split_column: str | None, problems: list[str]
) -> Iterator[_Row]:
    """The sound rows; what is wrong with the others is added to `problems`."""
    wanted = [column for column in (image_column, label_column, split_column) if column is not None]
    for row in read(table, Format(strip=" \t"), wanted):
        try:
            cells = [row.text(column) for column in wanted]
        except DataError as error:
            problems += error.lines
            continue
        path = os.path.join(folder, cells[0])
        split = cells[2].lower() if split_column is not None else "train"
        wrong = _mistake(wanted, cells, path, split)
        if wrong is None:
            yield _Row(row.place, path, cells[1], split)
        else:
            problems.append(f"{row.place}: column {wrong}")


def _mistake(columns: Sequence[str], cells: Sequence[str], path: str, split: str) -> str | None:
    for column, cell in zip(columns, cells, strict=True):
        if not cell:
            return f"'{column}': empty"
    if split not in _SPLITS:
        return f"'{columns[2]}': '{cells[2]}' is none of {', '.join(_SPLITS)}"
    if "\0" in path or not os.path.isfile(path):
        return f"'{columns[0]}': no file {path}"
    return None
