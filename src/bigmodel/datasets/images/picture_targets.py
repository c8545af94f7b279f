"""Targets of pictures other than one class: a number, or several labels, each yes, no or unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigmodel.datasets.files.class_counts import names_of_list, warn_similar_names
from bigmodel.datasets.tables.encoding import mean_std
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import format_count, truncate

_YES = frozenset({"1", "1.0", "true", "yes"})
_NO = frozenset({"0", "0.0", "false", "no"})
# with a decimal comma, a currency before or a unit behind, too
_NUMBER = re.compile(r"[$€£¥]?\s*([-+]?[.,]?\d[\d.,']*(?:e[-+]?\d+)?)(?:\s*(?:%|°?[^\W\d_]{1,5}[²³]?))?", re.IGNORECASE)
_MOSTLY = 0.9  # fraction of numeric cells; the others may stand for missing values
_MANY = 20  # more distinct numbers than this are measurements, not classes


@dataclass(frozen=True)
class NumberTarget:
    """A number as the target, standardized by mean and standard deviation of the training samples."""

    name: str
    mean: float
    std: float

    @classmethod
    def fit(cls, name: str, training: Sequence[str]) -> NumberTarget:
        """Compute mean and standard deviation of the training values.

        Raises:
            DataError: they are all the same.
        """
        mean, std = mean_std([float(value) for value in training])
        return cls(name, mean, std)

    @property
    def properties(self) -> dict[str, Any]:
        return {"num_classes": None, "outputs": 1, "target_std": self.std, "labels": None}

    def processor_spec(self) -> dict[str, Any]:
        kind = "bigmodel.inference.processors.image_values.ImageRegressionProcessor"
        return {"kind": kind, "target": self.name, "target_mean": self.mean, "target_std": self.std}

    @property
    def description(self) -> str:
        return f"one number ({self.name}, {self.mean:.4g} ± {self.std:.4g} in training)"

    def encode(self, values: Sequence[str]) -> Tensor:
        """Return float32 (N, 1)."""
        raw = torch.tensor([[float(value)] for value in values], dtype=torch.float64)
        return ((raw - self.mean) / self.std).float().view(len(values), 1)


@dataclass(frozen=True)
class LabelsTarget:
    """Several labels as the target: one column each of 1, 0 or nothing (unknown), or names in one cell."""

    names: Sequence[str]
    separator: str | None = None  # between names in one cell; None: one cell for each label

    @property
    def properties(self) -> dict[str, Any]:
        return {"num_classes": None, "outputs": len(self.names), "target_std": None, "labels": list(self.names)}

    def processor_spec(self) -> dict[str, Any]:
        return {
            "kind": "bigmodel.inference.processors.image_values.ImageMultiLabelProcessor",
            "labels": list(self.names),
        }

    @property
    def description(self) -> str:
        return format_count(len(self.names), "label")

    def encode(self, values: Sequence[Sequence[str]]) -> Tensor:
        """Return float32 (N, K): 1, 0 or NaN."""
        return torch.tensor([self._row(cells) for cells in values], dtype=torch.float32).view(-1, len(self.names))

    def _row(self, cells: Sequence[str]) -> list[float]:
        if self.separator is not None:
            there = set(split_names(cells[0], self.separator))
            return [float(name in there) for name in self.names]
        return [math.nan if not cell else float(cell.lower() in _YES) for cell in cells]

    def problem(self, cells: Sequence[str]) -> str | None:
        """Describe what is wrong with the cells of a row, or return None."""
        if self.separator is not None:
            unknown = [name for name in split_names(cells[0], self.separator) if name not in self.names]
            return f"no training row has the label '{truncate(unknown[0], 40)}'" if unknown else None
        bad = [cell for cell in cells if cell and cell.lower() not in _YES | _NO]
        return f"'{truncate(bad[0], 40)}' is not 1, 0 or empty" if bad else None


Target = NumberTarget | LabelsTarget


def number_problem(value: str) -> str | None:
    """Describe why a cell is no finite number, or return None."""
    try:
        fine = math.isfinite(float(value))
    except ValueError:
        fine = False
    return None if fine else f"'{truncate(value, 40)}' is not a finite number"


def split_names(cell: str, separator: str) -> list[str]:
    """Split a cell into distinct names; a list, as `['cat', 'dog']`, is split whatever the separator."""
    listed = names_of_list(cell)
    names = cell.split(separator) if listed is None else listed
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


def refuse_lists(places: Iterable[tuple[str, str]], column: str, file: object) -> None:
    """Raise DataError if cells that should hold one class each, given with their locations, are lists of labels."""
    wrong = [(place, cell) for place, cell in places if names_of_list(cell) is not None]
    if wrong:
        place, cell = wrong[0]
        raise DataError(
            f"{place}: column '{column}': {truncate(cell, 60)} is a list of labels, not one class ({len(wrong):,} such "
            f"rows in {file}); set task=multi_label dataset.target_type=labels dataset.label_column={column} "
            "dataset.label_separator=','"
        )


def reject_measurements(column: str, values: Sequence[str]) -> None:
    """Raise ConfigError if the values that would become classes look like measurements."""
    numbers = [match[1] for value in values if (match := _NUMBER.fullmatch(value.strip()))]
    if len(numbers) < _MOSTLY * len(values):
        return
    different = len(set(numbers))
    decimal = any(_is_decimal(number) for number in numbers)
    if (different > _MANY and (decimal or 2 * different > len(numbers))) or (decimal and 2 * different > len(numbers)):
        raise ConfigError(
            f"dataset.label_column: '{column}' has {different} different numbers in {len(numbers)} training rows, as "
            "if measured; set dataset.target_type=number task=regression, or "
            f"dataset.target_type=class if they are classes{_not_plain(values)}"
        )


def _is_decimal(number: str) -> bool:
    try:
        return not float(number).is_integer()
    except ValueError:  # of a comma, or several points
        return True


def _not_plain(values: Sequence[str]) -> str:
    odd = next((value for value in values if number_problem(value)), None)
    return "" if odd is None else f"; a number must be plain, as 1.5, not '{truncate(odd, 40)}'"


def describe_label_counts(names: Sequence[str], targets_NK: Tensor) -> list[str]:
    """Count the training samples of each label in a line, and warn of labels that none or all have."""
    yes = (targets_NK == 1).sum(0).tolist()
    no = (targets_NK == 0).sum(0).tolist()
    counts: Mapping[str, tuple[int, int]] = {name: pair for name, *pair in zip(names, yes, no, strict=True)}  # type: ignore[misc]
    shown = ", ".join(f"{name} {pair[0]:,} of {sum(pair):,}" for name, pair in [*counts.items()][:12])
    lines = [f"labels in training: {shown}{' ...' if len(names) > 12 else ''}"]
    one_sided = [name for name, pair in counts.items() if not all(pair)]
    if one_sided:
        lines.append(f"warning: labels that all or none of the training samples have: {', '.join(one_sided[:12])}")
    return lines + warn_similar_names(names)


def no_rows_error(file: object) -> DataError:
    """Return the error of a file without training rows."""
    return DataError(f"{file}: holds no training rows")
