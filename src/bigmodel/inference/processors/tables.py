"""Rows of tables, and the class or the number that is told of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bigmodel.constraints import Positive
from bigmodel.datasets.files import table_files as rows
from bigmodel.datasets.files.timestamps import DATE_PARTS
from bigmodel.datasets.tables.encoding import FeatureEncoder
from bigmodel.errors import DataError
from bigmodel.inference.processors import ranking
from bigmodel.inference.processors.files import list_files
from bigmodel.inference.processors.steps import Step, class_steps, number_steps
from bigmodel.inference.processors.values import format_values, output_values

__all__ = ["TableProcessor"]


class TableProcessor:
    """The `Processor` of tables: a source is one row, as `people.csv:2`. The column `target` need not be there.

    Raises:
        ValueError: the values do not fit together.
    """

    def __init__(
        self,
        numbers: Sequence[str],
        mean: Sequence[float],
        std: Sequence[Positive],
        categories: Mapping[str, Sequence[str]],
        target: str,
        columns: Sequence[str] | None,
        separator: str | None,
        comment: str | None,
        strip: str,
        missing: Sequence[str],
        classes: Sequence[str] | None = None,
        target_mean: float = 0.0,
        target_std: Positive = 1.0,
        dates: Mapping[str, str | None] | None = None,
        encoding: str | None = None,
        decimal: Literal[".", ","] = ".",
        header: bool | None = None,
    ) -> None:
        self._encoding = FeatureEncoder(numbers, mean, std, categories, dates or {})
        self._format = rows.TableFormat(columns, separator, comment, strip, missing, True, encoding, decimal, header)
        self._target, self._classes, self._mean, self._std = target, classes, target_mean, target_std
        self._read: dict[str, rows.Row] = {}
        self.notes: list[str] = []  # columns that were not looked at

    def list_inputs(self, given: str) -> Sequence[str]:
        """Every row of a file, of all files in a folder or matching a pattern, or of the standard input for `-`."""
        found = [given] if given == rows.STDIN else list_files(given, rows.SUFFIXES, "table")
        return [row.location for file in found for row in self._rows(file)]

    def load(self, source: str) -> Tensor:
        """float32 (F,)."""
        if source not in self._read:
            self._rows(source.rpartition(":")[0] or source)
        if source not in self._read:
            raise DataError(f"{source}: there is no such row; rows are named as people.csv:2")
        return self._encoding([self._read[source]])[0]

    def convert(self, value: object) -> Tensor:
        """The same of a row as a mapping from column to value; None and NaN are missing values."""
        if not isinstance(value, Mapping):
            raise DataError(f"input: a row of a table is a dict of columns, got a {type(value).__name__}")
        missing = [column for column in self._encoding.columns if column not in value]
        if missing:
            raise DataError(f"input: the row has no column {', '.join(map(repr, missing))}; None marks a missing value")
        fields = {column: [_field(value[column])] for column in self._encoding.columns}
        return self._encoding([*rows.table_from_values(fields, "input", self._format)])[0]

    def _rows(self, file: str) -> Sequence[rows.Row]:
        found = rows.read_rows(file, self._format, self._encoding.columns)
        unused = [name for name in found.columns if name not in self._encoding.columns]
        self.notes += [f"{file}: columns not looked at: {', '.join(unused)}"] if unused else []
        self._read |= {row.location: row for row in found}
        return found

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """float32 (N, F)."""
        return torch.stack([*samples]).to(device)

    def predict(self, model: nn.Module, inputs: Tensor, top: int | None = None, **_: Any) -> list[dict[str, Any]]:
        outputs = model(inputs)
        if self._classes is not None:
            return ranking.top_classes(outputs, self._classes, top)
        return output_values(outputs, self._mean, self._std)

    def format_rows(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        if self._classes is not None:
            yield from ranking.format_ranking("row", sources, self._classes, answered)
            return
        yield from format_values("row", sources, self._target, answered)

    def steps(self) -> Mapping[str, Sequence[Step]]:
        coded, form = self._encoding, self._format
        read: list[Step] = [
            {"op": "select_columns", "numbers": list(coded.numbers), "categories": list(coded.categories)},
            {"op": "strip", "characters": form.strip},
            {"op": "mark_missing", "values": list(form.missing), "as": ""},
            *([{"op": "date_parts", "formats": dict(coded.dates), "parts": list(DATE_PARTS)}] if coded.dates else []),
            {
                "op": "standardize",
                "axis": "column",
                "columns": coded.features,
                "mean": list(coded.mean),
                "std": list(coded.std),
                "missing": 0.0,
            },
            {
                "op": "encode_categories",
                "values": {name: list(values) for name, values in coded.categories.items()},
                "first": 1,
                "unknown": 0,
            },
            {"op": "concatenate", "columns": [*coded.features, *coded.categories]},
            {"op": "batch", "layout": "NF", "dtype": "float32"},
        ]
        if self._classes is not None:
            return {"preprocess": read, "postprocess": class_steps(self._classes)}
        return {"preprocess": read, "postprocess": number_steps([self._target], [self._mean], [self._std])}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        numbers = torch.randn(count, len(self._encoding.features), generator=generator)
        codes = [torch.randint(n, (count, 1), generator=generator) for n in self._encoding.cardinalities]
        return torch.cat([numbers, *codes], 1)


def _field(value: object) -> str:
    """A value as a file would hold it."""
    if value is None or value != value:  # NaN is not equal to itself
        return ""
    return str(value.item() if isinstance(value, (np.generic, Tensor)) else value)
