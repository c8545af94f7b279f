"""Encode the targets of table rows, and split the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigmodel.datasets.files.table_files import Row, raise_row_errors, sorted_labels
from bigmodel.datasets.files.timestamps import timestamps_of_rows
from bigmodel.datasets.loading.splits import holdout_split, stratified
from bigmodel.datasets.tables.encoding import mean_std


class TargetEncoder:
    """Encoder of one target column: class indices (N,) int64, or standardized values (N, 1) float32.

    Classes, mean and deviation are those of the training rows.
    """

    def __init__(self, rows: Sequence[Row], column: str, kind: str) -> None:
        self.column = column
        self.classes = sorted_labels(row.text(column) for row in rows) if kind == "class" else []
        self._numbers = {name: number for number, name in enumerate(self.classes)}
        self.mean, self.std = (0.0, 1.0) if self.classes else mean_std([row.number(column) for row in rows])

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
        raise_row_errors(
            [str(row.error_at(self.column, f"no training row has '{label}'")) for row, label in unknown], "dataset"
        )
        return torch.tensor([self._numbers[label] for label in labels], dtype=torch.int64)


class MultiLabelTargets:
    """Encoder of several yes-or-no columns: float32 (N, K), 1 or 0, NaN where the label is missing.

    Raises:
        DataError: a column has no value in any training row.
    """

    def __init__(self, rows: Sequence[Row], columns: Sequence[str]) -> None:
        self._columns = list(columns)
        silent = [column for column in columns if not any(row.text(column) for row in rows)]
        raise_row_errors(
            [f"dataset.targets: no training row has a value for '{name}'; leave it out" for name in silent], "dataset"
        )

    def about(self) -> dict[str, Any]:
        return {"labels": self._columns}

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """Return float32 (N, K): 1, 0, or NaN."""
        return torch.tensor([[row.number(column) for column in self._columns] for row in rows])


def split_rows(
    rows: Sequence[Row],
    time: str | None,
    val_fraction: float,
    test_fraction: float,
    time_format: str | None = None,
    stratify: str | None = None,
) -> dict[str, Sequence[Row]]:
    """Split the rows by time or at random; with the column `stratify`, the same fraction of each class."""
    if time is not None:
        values, problems = timestamps_of_rows(rows, [time], time_format)
        raise_row_errors(problems, "dataset")
        rows = [rows[n] for n in np.argsort(values, kind="stable").tolist()]
    splits: dict[str, Sequence[Row]] = {}
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        if stratify is None:
            kept, out = holdout_split(len(rows), fraction)
        else:
            kept, out = stratified([row.text(stratify) for row in rows], fraction)
        if time is not None:
            kept, out = torch.arange(len(kept)), torch.arange(len(kept), len(rows))
        if len(out):
            splits[name] = [rows[index] for index in out.tolist()]
        rows = [rows[index] for index in kept.tolist()]
    return splits | {"train": rows}
