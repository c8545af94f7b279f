"""Forecast the next time steps of series, in their own units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bigmodel.constraints import Positive, PositiveInt
from bigmodel.datasets.files.table_files import STDIN, SUFFIXES, TableFormat, read_rows
from bigmodel.datasets.tables.series_steps import StepRules, read_steps
from bigmodel.datasets.tables.standardizer import Standardizer
from bigmodel.errors import DataError
from bigmodel.formatting import columns_of, escape_control, format_count, left, right
from bigmodel.inference.inputs import as_array
from bigmodel.inference.processors.files import list_files
from bigmodel.inference.processors.steps import Step
from bigmodel.inference.processors.trained_format import as_trained
from bigmodel.interfaces import Axis, NoOptions

__all__ = ["ForecastProcessor"]

_MAX_VALUES = 1 << 26  # in one window
_MIN_WIDTH = 10  # of a column, in characters


class ForecastProcessor:
    """`Processor` of series: a source is a file whose last `window` rows are the input, or `-` for standard input.

    Raises:
        ValueError: the arguments contradict each other, or a window has too many values.
    """

    Options = NoOptions
    array_dimensions = 2  # of one window in memory; one more is a batch

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
        self._columns = columns
        self._window = window
        self._format = TableFormat(None, separator, missing=missing, encoding=encoding, decimal=decimal, header=header)
        self._time = [] if gaps == "cross" else [time] if isinstance(time, str) else list(time or ())
        self._rules = StepRules(time_format, sentinels, fill, gaps)
        self._standardizer = Standardizer(mean, std, log)
        self._log = log
        if len(columns) != len(mean):
            raise ValueError(f"columns: got {len(columns)}, but mean and std of {len(mean)}")
        if window * len(columns) > _MAX_VALUES:
            raise ValueError(f"window: {window} time steps of {len(columns)} series are over {_MAX_VALUES} values")

    def list_inputs(self, given: str) -> Iterable[str]:
        return [given] if given == STDIN else list_files(given, SUFFIXES, "table")

    def load(self, source: str) -> Tensor:
        """Read the last window of a file and standardize it: float32 (T, C)."""
        with as_trained(self._format):
            rows = read_rows(source, self._format, self._columns)
            needs_all = self._rules.gaps == "fill" or self._rules.fill in ("linear", "forward")
            last = rows if needs_all else rows.last_rows(self._window)
            time = self._time if set(self._time) <= rows.columns.keys() else []  # the file may lack it
            steps = read_steps(last, self._columns, time, self._rules, self._log)
        if len(steps.values_TC) < self._window:
            raise DataError(f"{source}: has {format_count(len(rows), 'row')}; a forecast needs {self._window}")
        if not steps.usable_starts(self._window)[-1]:
            raise DataError(f"{source}: its last {self._window} steps hold a gap in time or a missing value")
        return self._standardizer.transform(torch.from_numpy(steps.values_TC[-self._window :]))

    def convert(self, value: object) -> Tensor:
        """Standardize an array (T, C), columns in the order of the data, or a dict of columns: float32 (window, C)."""
        if isinstance(value, Mapping):
            missing = [column for column in self._columns if column not in value]
            if missing:
                raise DataError(f"input: the series have no column {', '.join(map(repr, missing))}")
            try:
                array = np.stack([np.asarray(value[column], dtype=np.float64) for column in self._columns], axis=1)
            except (TypeError, ValueError) as error:
                raise DataError(f"input: the columns must be numbers, equally many in each: {error}") from error
        elif (given := as_array(value)) is not None:
            array = given.astype(np.float64)
        else:
            raise DataError(f"input: series are a file, an array or a dict of columns, got a {type(value).__name__}")
        if array.ndim != 2 or array.shape[1] != len(self._columns) or len(array) < self._window:
            shape = f"({self._window} or more, {len(self._columns)})"
            raise DataError(f"input: the series need the shape {shape}, got {array.shape}")
        array = array[-self._window :]
        if not np.isfinite(array).all() or (self._log and not (array > 0).all()):
            raise DataError(f"input: not all values are finite{' and above 0' if self._log else ''}")
        return self._standardizer.transform(torch.from_numpy(array))

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """Stack windows: float32 (N, T, C)."""
        return torch.stack([*samples]).to(device)

    def predict(self, model: nn.Module, inputs: Tensor, options: NoOptions) -> list[dict[str, Any]]:
        values_NCH = self._standardizer.inverse_transform(model(inputs)).transpose(1, 2).tolist()
        return [{"forecast": dict(zip(self._columns, values_CH, strict=True))} for values_CH in values_NCH]

    @property
    def columns(self) -> Sequence[str]:
        """Names of the series."""
        return self._columns

    def in_units(self, values_TC: Tensor) -> Tensor:
        """Undo the standardization of values, float32 (T, C), on the CPU."""
        return self._standardizer.inverse_transform(values_TC.float().cpu())

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        source_width = max(columns_of(escape_control(text)) for text in ("file", *sources))
        width = max(_MIN_WIDTH, *(columns_of(escape_control(name)) for name in self._columns))
        names = [right(escape_control(name), width) for name in self._columns]
        yield "  ".join([left("file", source_width), "step", *names])
        for source, prediction in predictions:
            for step, values in enumerate(zip(*prediction["forecast"].values(), strict=True), 1):
                cells = (f"{value:>{width}.5g}" for value in values)
                yield "  ".join([left(escape_control(source), source_width), f"{step:>4}", *cells])

    def axes(self) -> Mapping[int, Axis]:
        return {1: Axis("time", self._window)}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        mean, std = list(self._standardizer.mean), list(self._standardizer.std)
        log, exp = ([{"op": "log"}], [{"op": "exp"}]) if self._log else ([], [])
        return {
            "preprocess": [
                {"op": "select_columns", "columns": list(self._columns)},
                {"op": "mark_missing", "values": [*self._format.missing, *self._rules.sentinels], "as": ""},
                {"op": "fill_missing", "values": self._rules.fill, "times": self._rules.gaps},
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
