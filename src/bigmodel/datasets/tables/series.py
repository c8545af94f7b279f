"""Several series over the same time steps, cut into pairs of windows: the past, and the forecast target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.constraints import Positive, PositiveInt
from bigmodel.datasets.files.table_files import TableFormat, find_file, read_rows
from bigmodel.datasets.files.table_format import changed_fields
from bigmodel.datasets.loading.tensors import IndexableSamples, TensorDataset, fingerprint_tensors
from bigmodel.datasets.loading.windows import SlidingWindows
from bigmodel.datasets.tables.encoding import mean_std
from bigmodel.datasets.tables.series_steps import StepRules, TimeSteps, read_steps
from bigmodel.datasets.tables.standardizer import Standardizer
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import format_count

__all__ = ["series"]


def series(
    root: str,
    file: str,
    columns: Sequence[str] | None,
    time: Sequence[str] | str | None,
    window: PositiveInt,
    horizon: PositiveInt,
    season: PositiveInt,
    split: tuple[Positive, Positive, Positive],
    log: bool = False,
    separator: str | None = ",",
    time_format: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
    decimal: Literal[".", ","] = ".",
    missing: Sequence[str] = ("",),
    sentinels: Sequence[float] = (),
    fill: Literal["refuse", "linear", "forward", "skip"] = "refuse",
    gaps: Literal["cross", "skip", "fill"] = "cross",
    broken: Literal["refuse", "skip"] = "refuse",
    source: str | None = None,
    channels: PositiveInt | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[Positive] | None = None,
) -> TensorDataset:
    """Inputs float32 (N, window, C), targets (N, horizon, C): every window there is, a step apart.

    `file` has a row for each step, in order of time; `columns` None: all but `time`, which is one column, or two of
    date and time. Values in `missing` or equal to one of the numbers in `sentinels` are missing: `fill` refuses them,
    fills them along a line or with the value before, or skips windows that hold one. Where time is passed over, `gaps`
    lets windows cross it, skips those that would, or fills in the steps. `split` are the rows for training,
    validation and testing, or shares of all rows where they sum up to no more than 1. Forecast targets lie within
    its own split; what precedes it may reach back into the split before. `log` takes the logarithm of each value first.
    `mean` and `std` are learned on the training rows unless they are given.

    Raises:
        ConfigError: the rows do not suffice for the split and the windows.
        DataError: the file is missing, or rows are bad; each is named by file, line and column.
    """
    times = [time] if isinstance(time, str) else list(time or ())
    form = TableFormat(
        None, separator, missing=missing, encoding=encoding, decimal=decimal, header=header, broken=broken
    )
    rules = StepRules(time_format, sentinels, fill, gaps)
    times = [time] if isinstance(time, str) else list(time or ())
    path = find_file(root, file, "file", source)
    rows = read_rows(path, form, [*(columns or ()), *times])
    if not rows:
        raise DataError(f"{path}: holds no rows")
    names = [name for name in rows.columns if name not in times] if columns is None else list(columns)
    steps = read_steps(rows, names, times, rules, log)
    counts = _counts(split, len(steps.values_TC))
    if min(counts[0] - window, *counts[1:]) < horizon:
        raise ConfigError(
            f"dataset.split: {counts} rows are too few for a window of {window} + {horizon} steps in each"
        )
    learned = _means_and_stds(steps.values_TC[: counts[0]], log)
    mean = [one for one, _ in learned] if mean is None else mean
    std = [one for _, one in learned] if std is None else std
    if len(mean) != len(names):
        raise ConfigError(f"dataset.mean and dataset.std: need {format_count(len(names), 'number')} each, one a series")
    series_TC = Standardizer(mean, std, log).transform(torch.from_numpy(steps.values_TC))
    splits = _windows(series_TC, steps, counts, window, horizon)
    return TensorDataset(
        splits=splits,
        properties={"channels": len(names), "mean": list(mean), "std": list(std)},
        notes=steps.notes,
        description=f"{len(names)} series, {format_count(horizon, 'step')} from {window}",
        spec={
            "kind": "bigmodel.inference.processors.series.ForecastProcessor",
            "columns": names,
            "time": time if time is None or isinstance(time, str) else times,
            "window": window,
            "log": log,
            "separator": separator,
            "mean": list(mean),
            "std": list(std),
            **changed_fields(form, "header", "encoding", "decimal", "missing"),
            **changed_fields(rules),
        },
        fingerprint=fingerprint_tensors([series_TC, *_starts(splits)]),
    )


def _means_and_stds(training_TC: NDArray[np.float64], log: bool) -> list[tuple[float, float]]:
    """Return mean and standard deviation of each series over the training rows, of its logarithm with `log`."""
    return [
        mean_std([math.log(value) for value in column if value == value] if log else column)
        for column in training_TC.T.tolist()
    ]


def _windows(
    series_TC: Tensor, steps: TimeSteps, counts: Sequence[int], window: int, horizon: int
) -> dict[str, tuple[IndexableSamples, IndexableSamples]]:
    """Cut each split into pairs of windows; `counts` are the rows of the splits.

    Raises:
        ConfigError: every window of a split runs over a gap or holds a missing value.
    """
    splits: dict[str, tuple[IndexableSamples, IndexableSamples]] = {}
    begins = 0  # the first step that is a target
    for name, count in zip(("train", "val", "test"), counts, strict=True):
        first = max(begins, window)
        number = begins + count - first - horizon + 1
        starts_N = _usable(steps, first - window, number, window + horizon)
        number = number if starts_N is None else len(starts_N)
        if not number:
            raise ConfigError(
                f"dataset.gaps: every window of {window} + {horizon} steps of the {name} split runs over a gap or "
                "holds a missing value; set dataset.gaps=fill and dataset.fill=linear, or dataset.gaps=cross"
            )
        before = SlidingWindows(series_TC, first - window, number, window, starts_N)
        splits[name] = (before, SlidingWindows(series_TC, first, number, horizon, starts_N))
        begins += count
    return splits


def _usable(found: TimeSteps, first: int, count: int, length: int) -> Tensor | None:
    """Return the indices of the windows, of `count` from `first` on, without a gap or missing value; None if all are
    usable.
    """
    usable = found.usable_starts(length)[first : first + count]
    return None if usable.all() else torch.from_numpy(np.flatnonzero(usable))


def _starts(splits: Mapping[str, tuple[IndexableSamples, IndexableSamples]]) -> list[Tensor]:
    return [one.starts_N for one, _ in splits.values() if isinstance(one, SlidingWindows) and one.starts_N is not None]


def _counts(split: Sequence[float], rows: int) -> list[int]:
    total = math.fsum(split)
    if total <= 1 + 1e-9:
        return [int(share * rows + 1e-9) for share in split]
    if any(share != int(share) for share in split) or total > rows:
        raise ConfigError(f"dataset.split: must be rows, of which there are {rows}, or shares of 1, not {list(split)}")
    return [int(share) for share in split]
