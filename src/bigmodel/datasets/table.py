"""Rows of a table, each with one column to be told from the others: a class, or a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bigmodel.datasets.encoding import Encoding, standard
from bigmodel.datasets.rows import Format, Row, find, read, refuse, sorted_labels
from bigmodel.datasets.splits import held_out
from bigmodel.datasets.tensors import TensorDataset, fingerprint
from bigmodel.errors import ConfigError, DataError
from bigmodel.ranges import BelowOne, NonNegativeInt, Positive, PositiveInt

__all__ = ["table"]

_Split = tuple[Tensor, Tensor]


def table(
    root: str,
    train: str,
    target: str,
    target_is: Literal["class", "number"],
    categories: Sequence[str],
    numbers: Sequence[str] | None,
    ignored: Sequence[str],
    val_fraction: BelowOne,
    test_fraction: BelowOne,
    test: str | None = None,
    time: str | None = None,
    columns: Sequence[str] | None = None,
    separator: str = ",",
    comment: str | None = None,
    strip: str = " ",
    missing: Sequence[str] = ("",),
    source: str | None = None,
    num_numbers: NonNegativeInt | None = None,
    cardinalities: Sequence[PositiveInt] | None = None,
    outputs: PositiveInt | None = None,
    num_classes: PositiveInt | None = None,
    target_std: Positive | None = None,
) -> TensorDataset:
    """Inputs float32 (N, F) as `Encoding` makes them; targets int64 (N,) of classes, or float32 (N, 1), standardised.

    `train` and `test` are files in `root`, or in a folder up to two below it. `numbers` None: every column without
    another role. Without a `test` file, `test_fraction` of the rows are the test split; `val_fraction` of what remains
    is held out. Which rows these are is the same for every seed; with a column of `time`, they are the latest ones. All
    that is learned, means, deviations, categories and classes, is learned on the rest.

    `num_numbers`, `cardinalities`, `outputs`, `num_classes` and `target_std` are what the data tells.

    Raises:
        ConfigError: a column has two roles, or a value is not the data's.
        DataError: a file is missing, or rows are bad; each is named by file, line and column.
    """
    form = Format(columns, separator, comment, strip, missing)
    roles = [target, *categories, *(numbers or ()), *ignored, *([] if time is None else [time])]
    twice = next((name for name in roles if roles.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"dataset: the column '{twice}' has two roles; it may have one")
    file = find(root, train, "train", source)
    given = [target, *categories, *(numbers or ()), *([] if time is None else [time])]
    rows = read(file, form, given)
    if not rows:
        raise DataError(f"{file}: holds no rows")
    names = [name for name in rows[0].columns if name not in roles] if numbers is None else numbers
    _refuse_bad(rows, names, target, target_is, time, str(file))
    splits = _cut(rows, time, val_fraction, 0.0 if test is not None else test_fraction)
    if test is not None:
        other = find(root, test, "test", source)
        splits["test"] = read(other, form, given)
        _refuse_bad(splits["test"], names, target, target_is, None, str(other))
    encoding = Encoding.learned(splits["train"], names, categories)
    answer = _Answer(splits["train"], target, target_is)
    tensors: dict[str, _Split] = {name: (encoding(part), answer(part)) for name, part in splits.items()}
    facts = {
        "num_numbers": len(names),
        "cardinalities": encoding.cardinalities,
        "outputs": len(answer.classes) or 1,
        "num_classes": len(answer.classes) or None,
        "target_std": None if answer.classes else answer.std,
    }
    _hold(facts, {"num_numbers": num_numbers, "cardinalities": cardinalities, "outputs": outputs})
    _hold(facts, {"num_classes": num_classes, "target_std": target_std})
    written = {"columns": columns, "separator": separator, "comment": comment, "strip": strip, "missing": list(missing)}
    what = f"{len(answer.classes)} classes" if answer.classes else f"one number ({target})"
    return TensorDataset(
        splits=tensors,
        facts=facts,
        summary=f"{what}, {len(names)} columns of numbers and {len(categories)} of categories",
        carried={"kind": "bigmodel.predicting.tables.Tables", **encoding.about(), **answer.about(), **written},
        fingerprint=fingerprint([tensor for pair in tensors.values() for tensor in pair]),
    )


class _Answer:
    """What is to be told, of training rows: the classes, or a number's mean and deviation."""

    def __init__(self, rows: Sequence[Row], column: str, kind: str) -> None:
        self.column, self.classes = column, sorted_labels(row.text(column) for row in rows) if kind == "class" else []
        self._numbers = {name: number for number, name in enumerate(self.classes)}
        self.mean, self.std = (0.0, 1.0) if self.classes else standard([row.number(column) for row in rows])

    def about(self) -> dict[str, Any]:
        if self.classes:
            return {"target": self.column, "classes": self.classes}
        return {"target": self.column, "target_mean": self.mean, "target_std": self.std}

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        if not self.classes:
            values = torch.tensor([[row.number(self.column)] for row in rows], dtype=torch.float64)
            return ((values - self.mean) / self.std).float().view(len(rows), 1)
        labels = [row.text(self.column) for row in rows]
        unknown = [(row, label) for row, label in zip(rows, labels, strict=True) if label not in self._numbers]
        refuse([str(row.wrong(self.column, f"no training row has '{label}'")) for row, label in unknown], "dataset")
        return torch.tensor([self._numbers[label] for label in labels], dtype=torch.int64)


def _refuse_bad(
    rows: Sequence[Row], numbers: Sequence[str], target: str, target_is: str, time: str | None, file: str
) -> None:
    """DataError that names the rows where a number is none, a field is missing, or there is nothing to learn."""
    problems: list[str] = []
    for row in rows:
        try:
            for name in numbers:
                row.number(name)
            value = row.number(target) if target_is == "number" else row.text(target)
            if value == "" or value != value:
                raise row.wrong(target, "missing, and it is what is to be told")
            if time is not None and not row.text(time):
                raise row.wrong(time, "missing")
        except DataError as error:
            problems += error.lines
    refuse(problems, file)


def _cut(rows: Sequence[Row], time: str | None, val_fraction: float, test_fraction: float) -> dict[str, Sequence[Row]]:
    """The rows of each split, by time or at random."""
    if time is not None:
        rows = sorted(rows, key=lambda row: row.moment(time))
    splits: dict[str, Sequence[Row]] = {}
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        kept, out = held_out(len(rows), fraction)
        if time is not None:
            kept, out = torch.arange(len(kept)), torch.arange(len(kept), len(rows))
        if len(out):
            splits[name] = [rows[index] for index in out.tolist()]
        rows = [rows[index] for index in kept.tolist()]
    return splits | {"train": rows}


def _hold(facts: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
    """ConfigError unless what the config claims is what the data tells."""
    problems = []
    for key, claim in claims.items():
        fact = facts[key]
        same = math.isclose(claim, fact) if isinstance(claim, float) and fact else claim in (None, fact)
        if not same and not (isinstance(claim, (list, tuple)) and list(claim) == fact):
            problems.append(f"dataset.{key}: the data has {fact}, not {claim}; leave it null")
    if problems:
        raise ConfigError(*problems)
