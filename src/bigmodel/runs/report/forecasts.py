"""Sections about forecasts: the error at each step ahead beside two baselines, and example windows."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.inference.processors.series import ForecastProcessor
from bigmodel.interfaces import Batch
from bigmodel.runs.report.charts import Series, line_chart
from bigmodel.runs.report.html import beside, grid, section, table
from bigmodel.runs.report.predictions import Subject
from bigmodel.runs.report.svg import SvgWriter
from bigmodel.tasks.forecasting import repeat_season

_MAX_SERIES = 8  # drawn of a window
_HISTORY = 2  # times as many steps before the forecast as in it are drawn

_Window = tuple[float, int, Tensor, Tensor, Tensor]  # error, number, inputs, targets, outputs


class ForecastInspector:
    """Collects absolute errors by step ahead, and keeps windows of each size of error."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._sums_H: Tensor | None = None
        self._naive_H: Tensor | None = None
        self._windows: list[_Window] = []
        self._units_2C: Tensor | None = (
            None  # the model's absolute errors in the series' own units, then the baseline's
        )
        self._seen = 0

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        errors_NHC = (outputs - batch.targets).abs()
        naive_NHC = (repeat_season(batch.inputs, 1, batch.targets.shape[1]) - batch.targets).abs()
        sums_H, naive_H = errors_NHC.mean(2).sum(0).double().cpu(), naive_NHC.mean(2).sum(0).double().cpu()
        self._sums_H = sums_H if self._sums_H is None else self._sums_H + sums_H
        self._naive_H = naive_H if self._naive_H is None else self._naive_H + naive_H
        self._seen += len(outputs)
        self._add_units(batch, outputs)
        each_N = errors_NHC.mean((1, 2)).cpu()
        order = each_N.argsort().tolist()
        for index in {order[0], order[len(order) // 2], order[-1]}:
            tensors = (tensor[index].cpu() for tensor in (batch.inputs, batch.targets, outputs))
            self._windows.append((float(each_N[index]), first + index, *tensors))

    def _add_units(self, batch: Batch, outputs: Tensor) -> None:
        processor, length = self._subject.processor, batch.targets.shape[1]
        if isinstance(processor, ForecastProcessor):
            true = processor.in_units(batch.targets.flatten(0, 1))
            rivals = (outputs, repeat_season(batch.inputs, 1, length))
            errors_2C = torch.stack([(processor.in_units(one.flatten(0, 1)) - true).abs().sum(0) for one in rivals])
            self._units_2C = errors_2C.double() if self._units_2C is None else self._units_2C + errors_2C

    def _series_table(self, length: int) -> str:
        processor = self._subject.processor
        if self._units_2C is None or not isinstance(processor, ForecastProcessor):
            return ""
        own_C, last_C = (self._units_2C / (self._seen * length)).tolist()
        each = zip(processor.columns, own_C, last_C, strict=True)
        rows = [[str(name), f"{own:.4g}", f"{last:.4g}"] for name, own, last in each]
        head = ["series", "the model", "repeating the last value"]
        return table(head, rows, "Mean absolute error in the series' own units")

    def sections(self, writer: SvgWriter, where: str) -> str:
        if self._sums_H is None or self._naive_H is None:
            return ""
        steps = list(range(1, 1 + len(self._sums_H)))
        series = [
            Series("the model", steps, (self._sums_H / self._seen).tolist()),
            Series("repeating the last value", steps, (self._naive_H / self._seen).tolist(), color=1),
        ]
        chart = line_chart(
            writer, "Mean absolute error by step ahead (standardized)", series, "steps ahead", lambda v: f"{v:.4g}"
        )
        ranked = sorted(self._windows, key=lambda one: one[:2])
        parts = [section("Errors", beside(chart, self._series_table(len(steps))), note=f"{where}.")]
        for title, window in (("A typical forecast", ranked[len(ranked) // 2]), ("The worst forecast", ranked[-1])):
            note = f"window {window[1]} of {self._subject.split}, mean absolute error {window[0]:.3g} (standardized)"
            if (num_series := window[3].shape[1]) > _MAX_SERIES:
                note += f"; the first {_MAX_SERIES} of {num_series} series"
            parts.append(section(title, grid(*self._charts(writer, window)), note=note))
        return "".join(parts)

    def _charts(self, writer: SvgWriter, window: _Window) -> list[str]:
        _, _, inputs_TC, targets_HC, outputs_HC = window
        processor = self._subject.processor
        names = [f"series {index}" for index in range(targets_HC.shape[1])]
        if isinstance(processor, ForecastProcessor):
            names = [str(name)[:60] for name in processor.columns]
            inputs_TC, targets_HC, outputs_HC = map(processor.in_units, (inputs_TC, targets_HC, outputs_HC))
        length = len(targets_HC)
        past_TC = inputs_TC[-_HISTORY * length :]
        before, after = list(range(1 - len(past_TC), 1)), list(range(1, 1 + length))
        return [
            line_chart(
                writer,
                names[index],
                [
                    Series("before", before, past_TC[:, index].tolist(), color=3),
                    Series("true", after, targets_HC[:, index].tolist(), color=0),
                    Series("forecast", after, outputs_HC[:, index].tolist(), color=1, dashed=True),
                ],
                "step",
                lambda value: f"{value:.5g}",
                linear=True,
            )
            for index in range(min(_MAX_SERIES, targets_HC.shape[1]))
        ]
