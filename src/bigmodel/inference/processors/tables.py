"""Predict the class or the number of table rows."""

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
from bigmodel.inference.processors.files import list_files
from bigmodel.inference.processors.ranking import RankingOptions, format_ranking, top_classes
from bigmodel.inference.processors.steps import Step, class_steps, number_steps
from bigmodel.inference.processors.trained_format import as_trained
from bigmodel.inference.processors.values import format_values, output_values
from bigmodel.inference.shown import Shown
from bigmodel.interfaces import NoOptions

__all__ = ["TableProcessor"]


class TableProcessor:
    """`Processor` of tables: a source is one row, as `people.csv:2`. The column `target` may be missing.

    Raises:
        ValueError: the arguments contradict each other.
    """

    Options: type[NoOptions] = RankingOptions  # of classifiers; a regression has none

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
        self._encoder = FeatureEncoder(numbers, mean, std, categories, dates or {})
        self._format = rows.TableFormat(columns, separator, comment, strip, missing, True, encoding, decimal, header)
        self._target = target
        self._classes = classes
        self._mean = target_mean
        self._std = target_std
        self._rows_by_location: dict[str, rows.Row] = {}
        self.notes: list[str] = []  # columns that were ignored
        if classes is None:
            self.Options = NoOptions

    def list_inputs(self, given: str) -> Sequence[str]:
        """List the rows of a file, of all files in a folder or matching a pattern, or of standard input for `-`."""
        files = [given] if given == rows.STDIN else list_files(given, rows.SUFFIXES, "table")
        return [row.location for file in files for row in self._read_rows(file)]

    def load(self, source: str) -> Tensor:
        """Encode a row: float32 (F,)."""
        if source not in self._rows_by_location:
            self._read_rows(source.rpartition(":")[0] or source)
        if source not in self._rows_by_location:
            raise DataError(f"{source}: no such row; rows are named as people.csv:2")
        with as_trained(self._format):
            return self._encoder([self._rows_by_location[source]])[0]

    def convert(self, value: object) -> Tensor:
        """Encode a row given as a mapping from column to value; None and NaN are missing values."""
        if not isinstance(value, Mapping):
            raise DataError(f"input: a row of a table is a dict of columns, got a {type(value).__name__}")
        missing = [column for column in self._encoder.columns if column not in value]
        if missing:
            raise DataError(f"input: the row has no column {', '.join(map(repr, missing))}; None marks a missing value")
        fields = {column: [_field(value[column])] for column in self._encoder.columns}
        return self._encoder([*rows.table_from_values(fields, "input", self._format)])[0]

    def _read_rows(self, file: str) -> Sequence[rows.Row]:
        with as_trained(self._format):
            table = rows.read_rows(file, self._format, self._encoder.columns)
        unused = [name for name in table.columns if name not in self._encoder.columns]
        if unused:
            self.notes.append(f"{file}: unused columns: {', '.join(unused)}")
        self._rows_by_location |= {row.location: row for row in table}
        return table

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """Stack rows: float32 (N, F)."""
        return torch.stack([*samples]).to(device)

    def show(self, inputs: Tensor) -> Shown:
        return Shown(fields=self._encoder.decode(inputs))

    def predict(self, model: nn.Module, inputs: Tensor, options: Any) -> list[dict[str, Any]]:
        outputs = model(inputs)
        if self._classes is None:
            return output_values(outputs, self._mean, self._std)
        return top_classes(outputs, self._classes, options.top)

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        if self._classes is None:
            return format_values("row", sources, self._target, predictions)
        return format_ranking("row", sources, self._classes, predictions)

    def steps(self) -> Mapping[str, Sequence[Step]]:
        encoder = self._encoder
        table = self._format
        read: list[Step] = [
            {"op": "select_columns", "numbers": list(encoder.numbers), "categories": list(encoder.categories)},
            {"op": "strip", "characters": table.strip},
            {"op": "mark_missing", "values": list(table.missing), "as": ""},
            *(
                [{"op": "date_parts", "formats": dict(encoder.dates), "parts": list(DATE_PARTS)}]
                if encoder.dates
                else []
            ),
            {
                "op": "standardize",
                "axis": "column",
                "columns": encoder.features,
                "mean": list(encoder.mean),
                "std": list(encoder.std),
                "missing": 0.0,
            },
            {
                "op": "encode_categories",
                "values": {name: list(values) for name, values in encoder.categories.items()},
                "first": 1,
                "unknown": 0,
            },
            {"op": "concatenate", "columns": [*encoder.features, *encoder.categories]},
            {"op": "batch", "layout": "NF", "dtype": "float32"},
        ]
        if self._classes is not None:
            return {"preprocess": read, "postprocess": class_steps(self._classes)}
        return {"preprocess": read, "postprocess": number_steps([self._target], [self._mean], [self._std])}

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        numbers = torch.randn(count, len(self._encoder.features), generator=generator)
        codes = [torch.randint(n, (count, 1), generator=generator) for n in self._encoder.cardinalities]
        return torch.cat([numbers, *codes], 1)


def _field(value: object) -> str:
    """Return a value as the text that a file would hold."""
    if value is None or value != value:  # NaN is not equal to itself
        return ""
    return str(value.item() if isinstance(value, (np.generic, Tensor)) else value)
