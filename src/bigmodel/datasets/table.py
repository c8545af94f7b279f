"""Rows of a table, each with one column to be told from the others: a class, or a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from bigmodel.datasets.answers import Answer, cut, hold
from bigmodel.datasets.encoding import Encoding
from bigmodel.datasets.rows import Format, Row, find, read, refuse
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
    splits = cut(rows, time, val_fraction, 0.0 if test is not None else test_fraction)
    if test is not None:
        other = find(root, test, "test", source)
        splits["test"] = read(other, form, given)
        _refuse_bad(splits["test"], names, target, target_is, None, str(other))
    encoding = Encoding.learned(splits["train"], names, categories)
    answer = Answer(splits["train"], target, target_is)
    tensors: dict[str, _Split] = {name: (encoding(part), answer(part)) for name, part in splits.items()}
    facts = {
        "num_numbers": len(names),
        "cardinalities": encoding.cardinalities,
        "outputs": len(answer.classes) or 1,
        "num_classes": len(answer.classes) or None,
        "target_std": None if answer.classes else answer.std,
    }
    hold(facts, {"num_numbers": num_numbers, "cardinalities": cardinalities, "outputs": outputs})
    hold(facts, {"num_classes": num_classes, "target_std": target_std})
    written = {"columns": columns, "separator": separator, "comment": comment, "strip": strip, "missing": list(missing)}
    what = f"{len(answer.classes)} classes" if answer.classes else f"one number ({target})"
    return TensorDataset(
        splits=tensors,
        facts=facts,
        summary=f"{what}, {len(names)} columns of numbers and {len(categories)} of categories",
        carried={"kind": "bigmodel.predicting.tables.Tables", **encoding.about(), **answer.about(), **written},
        fingerprint=fingerprint([tensor for pair in tensors.values() for tensor in pair]),
    )


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
