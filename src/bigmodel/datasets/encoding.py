"""From rows of a table to numbers: standardised, and categories by their place in a list; learned on training rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bigmodel.datasets.rows import Row, sorted_labels
from bigmodel.ranges import Positive


@dataclass(frozen=True)
class Encoding:
    """Rows as float32 (F,): first the numbers, less their mean and over their deviation, then the categories' numbers.

    A missing number counts as the mean, so it becomes 0. A missing category is a category of its own, where training
    rows lack it too. Category 0 is what no training row had.

    Raises:
        ValueError: the parts do not fit together.
    """

    numbers: Sequence[str]
    mean: Sequence[float]
    std: Sequence[Positive]
    categories: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        if not len(self.numbers) == len(self.mean) == len(self.std):
            raise ValueError(f"mean and std: must be {len(self.numbers)} numbers each, one a column of numbers")
        for column, values in self.categories.items():
            if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) for value in values):
                raise ValueError(f"categories: must be a list of texts for column '{column}'")

    @classmethod
    def learned(cls, rows: Sequence[Row], numbers: Sequence[str], categories: Sequence[str]) -> Encoding:
        """What these rows, which `problems` has found sound, have for mean, deviation and categories."""
        columns = [standard([row.number(name) for row in rows]) for name in numbers]
        seen = {name: sorted_labels(row.text(name) for row in rows) for name in categories}
        return cls(list(numbers), [mean for mean, _ in columns], [std for _, std in columns], seen)

    @property
    def columns(self) -> list[str]:
        return [*self.numbers, *self.categories]

    @property
    def cardinalities(self) -> list[int]:
        """How many numbers the codes of each category may be: one more than it has values."""
        return [1 + len(values) for values in self.categories.values()]

    def about(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "mean": self.mean, "std": self.std, "categories": dict(self.categories)}

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """float32 (N, F).

        Raises:
            DataError: something in a row is no number, or the row has not as many fields as there are columns.
        """
        raw_NF = torch.tensor([self._raw(row) for row in rows], dtype=torch.float64).view(len(rows), len(self.columns))
        count = len(self.numbers)
        mean_K, std_K = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.std))
        raw_NF[:, :count] = ((raw_NF[:, :count] - mean_K) / std_K).nan_to_num(nan=0.0)
        return raw_NF.float()

    def _raw(self, row: Row) -> list[float]:
        codes = (code.get(row.text(name), 0) for name, code in self._codes.items())
        return [*(row.number(name) for name in self.numbers), *codes]

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        return {name: {value: n for n, value in enumerate(values, 1)} for name, values in self.categories.items()}


def standard(values: Sequence[float]) -> tuple[float, float]:
    """Mean and deviation (1 if all are equal) of what is there, rounded so that every machine finds the same."""
    there = [value for value in values if not math.isnan(value)]
    mean = math.fsum(there) / max(1, len(there))
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in there) / max(1, len(there)))
    return _rounded(mean), _rounded(std) if std > 1e-12 * max(1.0, abs(mean)) else 1.0


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")
