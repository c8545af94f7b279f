"""Several series over the same steps of time, cut into windows: what came before, and what comes next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from bigmodel.datasets.encoding import standard
from bigmodel.datasets.rows import Format, Row, find, read, refuse
from bigmodel.datasets.scale import Scale
from bigmodel.datasets.tensors import Samples, TensorDataset, fingerprint
from bigmodel.datasets.windows import Windows
from bigmodel.errors import ConfigError, DataError
from bigmodel.ranges import Positive, PositiveInt

__all__ = ["series"]


def series(
    root: str,
    file: str,
    columns: Sequence[str] | None,
    time: str | None,
    window: PositiveInt,
    horizon: PositiveInt,
    season: PositiveInt,
    split: tuple[Positive, Positive, Positive],
    log: bool = False,
    separator: str = ",",
    source: str | None = None,
    channels: PositiveInt | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[Positive] | None = None,
) -> TensorDataset:
    """Inputs float32 (N, window, C), targets (N, horizon, C): every window there is, a step apart.

    `file` has a row for each step, in order of time; `columns` None: all but `time`. `split` are the rows for training,
    validation and testing, or shares of all rows where they sum up to no more than 1. What is to be told lies within
    its own split; what precedes it may reach back into the split before. `log` takes the logarithm of each value first.
    `mean` and `std` are learned on the training rows unless they are given.

    Raises:
        ConfigError: the rows do not suffice for the split and the windows.
        DataError: the file is missing, or rows are bad; each is named by file, line and column.
    """
    form = Format(separator=separator)
    path = find(root, file, "file", source)
    rows = read(path, form, [*(columns or ()), *([] if time is None else [time])])
    if not rows:
        raise DataError(f"{path}: holds no rows")
    names = [name for name in rows[0].columns if name != time] if columns is None else list(columns)
    values = numbers(rows, names, log, str(path))
    if time is not None:
        _refuse_disorder(rows, time, str(path))
    counts = _counts(split, len(rows))
    if min(counts[0] - window, *counts[1:]) < horizon:
        raise ConfigError(f"dataset.split: {counts} rows do not hold a window of {window} + {horizon} steps in each")
    training = zip(*values[: counts[0]], strict=True)
    learned = [standard([math.log(value) for value in column] if log else column) for column in training]
    mean = [one for one, _ in learned] if mean is None else mean
    std = [one for _, one in learned] if std is None else std
    if len(mean) != len(names):
        raise ConfigError(f"dataset.mean and dataset.std: need {len(names)} numbers each, one a series")
    series_TC = Scale(mean, std, log).scaled(torch.tensor(values, dtype=torch.float64))
    splits: dict[str, tuple[Samples, Samples]] = {}
    begins = 0  # the first step that is to be told
    for name, count in zip(("train", "val", "test"), counts, strict=True):
        first = max(begins, window)
        number = begins + count - first - horizon + 1
        before = Windows(series_TC, first - window, number, window)
        splits[name] = (before, Windows(series_TC, first, number, horizon))
        begins += count
    return TensorDataset(
        splits=splits,
        facts={"channels": len(names), "mean": list(mean), "std": list(std)},
        summary=f"{len(names)} series, {horizon} steps from {window}",
        carried={
            "kind": "bigmodel.predicting.series.Series",
            "columns": names,
            "time": time,
            "window": window,
            "log": log,
            "separator": separator,
            "mean": list(mean),
            "std": list(std),
        },
        fingerprint=fingerprint([series_TC]),
    )


def numbers(rows: Sequence[Row], columns: Sequence[str], log: bool, file: str) -> list[list[float]]:
    """Each row's values.

    Raises:
        DataError: some are missing or no numbers, or have no logarithm; the first few are named.
    """
    values: list[list[float]] = []
    problems: list[str] = []
    for row in rows:
        try:
            found = [row.number(name) for name in columns]
            for name, value in zip(columns, found, strict=True):
                if math.isnan(value):
                    raise row.wrong(name, "missing; a series needs a value at every step")
                if log and value <= 0:
                    raise row.wrong(name, f"{value:g} has no logarithm")
            values.append(found)
        except DataError as error:
            problems += error.lines
    refuse(problems, file)
    return values


def _counts(split: Sequence[float], rows: int) -> list[int]:
    total = math.fsum(split)
    if total <= 1 + 1e-9:
        return [int(share * rows + 1e-9) for share in split]
    if any(share != int(share) for share in split) or total > rows:
        raise ConfigError(f"dataset.split: must be rows, of which there are {rows}, or shares of 1, not {list(split)}")
    return [int(share) for share in split]


def _refuse_disorder(rows: Sequence[Row], time: str, file: str) -> None:
    """DataError unless the rows come in order of time, which dates as 2026-11-24 do as texts."""
    problems = [
        str(row.wrong(time, f"'{row.text(time)}' does not come after '{before.text(time)}'"))
        for before, row in pairwise(rows)
        if row.moment(time) <= before.moment(time)
    ]
    refuse(problems, file)
