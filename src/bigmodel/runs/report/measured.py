"""Sections about predicted numbers and labels: predicted over true values, the largest errors, each label's AUC."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.interfaces import Batch
from bigmodel.runs.report.charts import scatter_chart
from bigmodel.runs.report.html import grid, section, table
from bigmodel.runs.report.media import card, cards
from bigmodel.runs.report.predictions import Subject
from bigmodel.runs.report.svg import SvgWriter
from bigmodel.tasks.metrics.auc import auc_from_histograms, histograms

_MAX_MISTAKES = 12
_MAX_POINTS = 500  # of the chart
_MAX_LABELS = 200


class NumberInspector:
    """Collects the first number of each sample, true and predicted, in the data's own units."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._mean = float(subject.spec.get("target_mean", 0.0))
        self._std = float(subject.spec.get("target_std", 1.0))
        self._pairs: list[tuple[float, float]] = []
        self._worst: list[tuple[float, int, float, float, Tensor]] = []

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        true_N, found_N = (
            (values.flatten(1)[:, 0].double().cpu() * self._std + self._mean).tolist()
            for values in (batch.targets.view(len(outputs), -1), outputs.view(len(outputs), -1))
        )
        self._pairs += zip(true_N, found_N, strict=True)
        errors_N = torch.tensor([abs(one - other) for one, other in zip(true_N, found_N, strict=True)])
        for index in errors_N.topk(min(_MAX_MISTAKES, len(errors_N))).indices.tolist():
            sample = batch.inputs[index].cpu()
            self._worst.append((float(errors_N[index]), first + index, true_N[index], found_N[index], sample))
        self._worst = sorted(self._worst, key=lambda one: (-one[0], one[1]))[:_MAX_MISTAKES]

    def sections(self, writer: SvgWriter, where: str) -> str:
        name = str(self._subject.spec.get("target", "value"))[:60]
        kept = self._pairs[:: max(1, len(self._pairs) // _MAX_POINTS)]
        xs, ys = [true for true, _ in kept], [found for _, found in kept]
        chart = scatter_chart(writer, f"Predicted over true {name}", xs, ys, "true", "predicted value")
        shown = []
        for error, index, true, found, sample in self._worst:
            facts = [("true", f"{true:.5g}"), ("predicted", f"{found:.5g}"), ("error", f"{error:.4g}")]
            facts += self._subject.origin(index)
            shown.append(card(self._subject.show(sample), f"{name} {true:.5g}", facts))
        return section("Predictions", grid(chart), note=f"{where}.") + section("Largest errors", cards(shown))


class LabelInspector:
    """Collects the scores of each label, as histograms of samples without and with it."""

    def __init__(self, subject: Subject) -> None:
        self._names = [str(name) for name in subject.spec.get("labels", ())][:_MAX_LABELS]
        self._scores: dict[int, Tensor] = {}

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        for index, _ in enumerate(self._names):
            truth_N = batch.targets[:, index]
            known_N = ~truth_N.isnan()
            counts = histograms(outputs[:, index][known_N], truth_N[known_N].long()).cpu()
            self._scores[index] = self._scores.get(index, torch.zeros_like(counts)) + counts

    def sections(self, writer: SvgWriter, where: str) -> str:
        rows = []
        for index, name in enumerate(self._names):
            counts = self._scores[index].tolist() if index in self._scores else [0, 0]
            without, having = sum(counts[: len(counts) // 2]), sum(counts[len(counts) // 2 :])
            auc = f"{auc_from_histograms(counts):.4f}" if without and having else "–"
            rows.append([name, auc, str(having), str(without + having)])
        return section("Labels", table(["label", "AUC", "with it", "known"], rows), note=f"{where}.") if rows else ""
