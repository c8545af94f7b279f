"""Series up to now, and their next steps in their own units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bigmodel.constraints import Positive, PositiveInt
from bigmodel.datasets.files.table_files import STDIN, SUFFIXES, TableFormat, read_rows
from bigmodel.datasets.tables.series_steps import Gaps, Missing, read_steps
from bigmodel.datasets.tables.standardizer import Standardizer
from bigmodel.errors import DataError
from bigmodel.formatting import columns_of, escape_control, left, right
from bigmodel.inference.inputs import as_array
from bigmodel.inference.processors.files import list_files
from bigmodel.inference.processors.steps import Step
from bigmodel.interfaces import Axis

__all__ = ["ForecastProcessor"]

_LARGEST = 1 << 26  # values in one window


class ForecastProcessor:
    """The `Processor` of series: a source is a file whose last `window` rows are the window, or the standard input for
    `-`.

    Raises:
        ValueError: the values do not fit together, or no memory would hold a window.
    """

    def __init__(
        self,
        columns: Sequence[str],
        time: Sequence[str] | str | None,
        window: PositiveInt,
        log: bool,
        separator: str | None,
        mean: Sequence[float],
        std: Sequence[Positive],
        time_format: str | None = None,
        header: bool | None = None,
        encoding: str | None = None,
        decimal: Literal[".", ","] = ".",
        missing: Sequence[str] = ("",),
        sentinels: Sequence[float] = (),
        fill: Literal["refuse", "linear", "forward", "skip"] = "refuse",
        gaps: Literal["cross", "skip", "fill"] = "cross",
    ) -> None:
        self._columns, self._window = columns, window
        self._format = TableFormat(None, separator, missing=missing, encoding=encoding, decimal=decimal, header=header)
        self._time = [] if gaps == "cross" else [time] if isinstance(time, str) else list(time or ())
        self._time_format, self._sentinels = time_format, sentinels
        self._fill: Missing = fill
        self._gaps: Gaps = gaps
        self._scale, self._log = Standardizer(mean, std, log), log
        if len(columns) != len(mean):
            raise ValueError(f"columns: {len(columns)}, with mean and std of {len(mean)}")
        if window * len(columns) > _LARGEST:
            raise ValueError(f"window: {window} steps of {len(columns)} series are more than any memory holds")

    def list_inputs(self, given: str) -> Iterable[str]:
        return [given] if given == STDIN else list_files(given, SUFFIXES, "table")

    def load(self, source: str) -> Tensor:
        """float32 (T, C), scaled."""
        rows = read_rows(source, self._format, self._columns)
        last = rows if self._gaps == "fill" or self._fill in ("linear", "forward") else rows.last_rows(self._window)
        time = self._time if set(self._time) <= rows.columns.keys() else []  # it need not be there
        found = read_steps(
            last, self._columns, time, self._time_format, self._sentinels, self._fill, self._gaps, self._log
        )
        if len(found.values_TC) < self._window:
            raise DataError(f"{source}: has {len(rows)} rows; a forecast is made from {self._window}")
        if not found.usable_starts(self._window)[-1]:
            raise DataError(f"{source}: its last {self._window} steps hold a gap in time or a missing value")
        return self._scale.transform(torch.from_numpy(found.values_TC[-self._window :]))

    array_dimensions = 2

    def convert(self, value: object) -> Tensor:
        """The same of an array (T, C), its columns in the order of the data's, or of a dict of columns."""
        if isinstance(value, Mapping):
            missing = [column for column in self._columns if column not in value]
            if missing:
                raise DataError(f"input: the series have no column {', '.join(map(repr, missing))}")
            try:
                array = np.stack([np.asarray(value[column], dtype=np.float64) for column in self._columns], axis=1)
            except (TypeError, ValueError) as error:
                raise DataError(f"input: the columns are not numbers, as many in each: {error}") from error
        elif (found := as_array(value)) is not None:
            array = found.astype(np.float64)
        else:
            raise DataError(f"input: series are a file, an array or a dict of columns, got a {type(value).__name__}")
        if array.ndim != 2 or array.shape[1] != len(self._columns) or len(array) < self._window:
            needs = f"({self._window} or more, {len(self._columns)})"
            raise DataError(f"input: the series need the shape {needs}, got {array.shape}")
        array = array[-self._window :]
        if not np.isfinite(array).all() or (self._log and not (array > 0).all()):
            raise DataError(f"input: not all values are finite{' and above 0' if self._log else ''}")
        return self._scale.transform(torch.from_numpy(array))

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """float32 (N, T, C)."""
        return torch.stack([*samples]).to(device)

    def predict(self, model: nn.Module, inputs: Tensor, **_: Any) -> list[dict[str, Any]]:
        values_NCH = self._scale.inverse_transform(model(inputs)).transpose(1, 2).tolist()
        return [{"forecast": dict(zip(self._columns, values_CH, strict=True))} for values_CH in values_NCH]

    def format_rows(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        first = max(map(columns_of, map(escape_control, ("file", *sources))))
        size = max(10, *map(columns_of, map(escape_control, self._columns)))
        yield "  ".join([left("file", first), "step", *(right(escape_control(name), size) for name in self._columns)])
        for source, answer in answered:
            for step, values in enumerate(zip(*answer["forecast"].values(), strict=True), 1):
                cells = (f"{value:>{size}.5g}" for value in values)
                yield "  ".join([left(escape_control(source), first), f"{step:>4}", *cells])

    def axes(self) -> Mapping[int, Axis]:
        return {1: Axis("time", self._window)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        mean, std = list(self._scale.mean), list(self._scale.std)
        log, exp = ([{"op": "log"}], [{"op": "exp"}]) if self._log else ([], [])
        return {
            "preprocess": [
                {"op": "select_columns", "columns": list(self._columns)},
                {"op": "mark_missing", "values": [*self._format.missing, *self._sentinels], "as": ""},
                {"op": "fill_missing", "values": self._fill, "times": self._gaps},
                {"op": "last_rows", "count": self._window},
                *log,
                {"op": "standardize", "axis": "column", "mean": mean, "std": std},
                {"op": "batch", "layout": "NTC", "dtype": "float32"},
            ],
            "postprocess": [
                {"op": "unstandardize", "axis": 2, "columns": list(self._columns), "mean": mean, "std": std},
                *exp,
            ],
        }

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self._window, len(self._columns), generator=generator)
