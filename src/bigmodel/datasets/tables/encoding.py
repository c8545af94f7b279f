"""Encode table rows as numbers: standardized values and category indices, both fitted on training rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.constraints import Positive
from bigmodel.datasets.files.table_files import Row, raise_row_errors, sorted_labels
from bigmodel.datasets.files.timestamps import date_feature_names, date_parts
from bigmodel.formatting import format_count


@dataclass(frozen=True)
class FeatureEncoder:
    """Rows as float32 (F,): the numbers and the parts of dates, less their mean and over their deviation, then the
    categories' numbers. `dates` has the format of each column of dates, None for ISO.

    A missing number counts as the mean, so it becomes 0. A missing category is a category of its own, where training
    rows lack it too. Category 0 is what no training row had.

    Raises:
        ValueError: the parts do not fit together.
    """

    numbers: Sequence[str]
    mean: Sequence[float]
    std: Sequence[Positive]
    categories: Mapping[str, Sequence[str]]
    dates: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.features)
        if not count == len(self.mean) == len(self.std):
            numbers = format_count(count, "number")
            raise ValueError(f"mean and std: must be {numbers} each, one a column of numbers or part of a date")
        if any(not (form is None or isinstance(form, str)) for form in self.dates.values()):
            raise ValueError("dates: must be a format for each column, or null for ISO dates")
        for column, values in self.categories.items():
            if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) for value in values):
                raise ValueError(f"categories: must be a list of texts for column '{column}'")

    @classmethod
    def fit(
        cls,
        rows: Sequence[Row],
        numbers: Sequence[str],
        categories: Sequence[str],
        dates: Mapping[str, str | None] | None = None,
    ) -> FeatureEncoder:
        """Learn means, deviations and categories from valid rows."""
        parts = [date_parts(_texts(rows, name), form)[0].T for name, form in (dates or {}).items()]
        values = [*(_numbers(rows, name) for name in numbers), *(part for date in parts for part in date)]
        columns = [mean_std(column.tolist()) for column in values]
        seen = {name: sorted_labels(_texts(rows, name)) for name in categories}
        return cls(list(numbers), [mean for mean, _ in columns], [std for _, std in columns], seen, dict(dates or {}))

    @property
    def columns(self) -> list[str]:
        return [*self.numbers, *self.dates, *self.categories]

    @property
    def features(self) -> list[str]:
        """Names of the numeric inputs: numeric columns, and parts of dates."""
        return [*self.numbers, *date_feature_names(self.dates)]

    @property
    def cardinalities(self) -> list[int]:
        """Number of codes of each categorical column: one more than it has values."""
        return [1 + len(values) for values in self.categories.values()]

    def about(self) -> dict[str, Any]:
        about = {"numbers": self.numbers, "mean": self.mean, "std": self.std, "categories": dict(self.categories)}
        return about | ({"dates": dict(self.dates)} if self.dates else {})

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """Return float32 (N, F).

        Raises:
            DataError: something in a row is no number, or the row has not as many fields as there are columns.
        """
        raise_row_errors(
            [str(error) for row in rows for error in [row.width_problem(self.columns)] if error is not None], "input"
        )
        dates = [date_parts(_texts(rows, name), form) for name, form in self.dates.items()]
        for (_, problems), name in zip(dates, self.dates, strict=True):
            raise_row_errors([str(rows[n].error_at(name, what)) for n, what in problems.items()], "input")
        columns = [*(_numbers(rows, name) for name in self.numbers), *(part for date, _ in dates for part in date.T)]
        columns += [
            np.array([code.get(text, 0) for text in _texts(rows, name)], dtype=np.float64)
            for name, code in self._codes.items()
        ]
        empty_NF = np.empty((len(rows), 0))
        raw_NF = torch.from_numpy(np.stack(columns, axis=1) if columns else empty_NF)
        count = len(self.features)
        mean_K, std_K = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.std))
        raw_NF[:, :count] = ((raw_NF[:, :count] - mean_K) / std_K).nan_to_num(nan=0.0)
        return raw_NF.float()

    def decode(self, encoded_F: Tensor) -> dict[str, str]:
        """Return an encoded row's values by feature, as texts. A missing number is shown as the mean it became."""
        values = encoded_F.double().tolist()
        numbers = zip(self.features, values, self.mean, self.std, strict=False)
        shown = {name: f"{value * std + mean:.6g}" for name, value, mean, std in numbers}
        codes = values[len(self.features) :]
        for (name, known), code in zip(self.categories.items(), codes, strict=True):
            shown[name] = known[int(code) - 1] if 0 < code <= len(known) else "(another value)"
        return shown

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        return {name: {value: n for n, value in enumerate(values, 1)} for name, values in self.categories.items()}


def _numbers(rows: Sequence[Row], column: str) -> NDArray[np.float64]:
    """Return the numbers of a column.

    Raises:
        DataError: one is none.
    """
    if not _of_one_table(rows):
        return np.array([row.number(column) for row in rows], dtype=np.float64)
    values, problems = rows[0].table.numbers(column)
    if problems:
        raise_row_errors(
            [str(row.error_at(column, problems[row.index])) for row in rows if row.index in problems], "input"
        )
    return values[[row.index for row in rows]]


def _texts(rows: Sequence[Row], column: str) -> list[str]:
    if not _of_one_table(rows):
        return [row.text(column) for row in rows]
    texts = rows[0].table.texts(column)
    return [texts[row.index] for row in rows]


def _of_one_table(rows: Sequence[Row]) -> bool:
    return bool(rows) and all(row.table is rows[0].table for row in rows)


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (1 if all are equal) of the values that are there, rounded alike on every machine."""
    there = [value for value in values if not math.isnan(value)]
    mean = math.fsum(there) / max(1, len(there))
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in there) / max(1, len(there)))
    return _round(mean), _round(std) if std > 1e-12 * max(1.0, abs(mean)) else 1.0


def _round(value: float) -> float:
    return float(f"{value:.9g}")
