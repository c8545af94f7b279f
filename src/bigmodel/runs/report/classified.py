"""Sections about a classifier's predictions: the most confident mistakes, and calibration."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.interfaces import Batch
from bigmodel.runs.report.charts import reliability_chart
from bigmodel.runs.report.confusion import MAX_CLASSES, class_names, confusion
from bigmodel.runs.report.html import grid, section
from bigmodel.runs.report.media import card, cards
from bigmodel.runs.report.predictions import Subject
from bigmodel.runs.report.svg import SvgWriter

_MAX_MISTAKES = 24
_BINS = 10


class ClassifierInspector:
    """Collects confidences, and the mistakes that the model was surest of."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._mistakes: list[tuple[float, int, int, int, float, Tensor]] = []
        self._counts: Tensor | None = None
        self._num_classes = 0
        self._bins_3B = torch.zeros(3, _BINS, dtype=torch.float64)  # samples, sum of confidences, right ones

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        probs_NC = outputs.float().softmax(1).cpu()
        true_N = batch.targets.cpu()
        sure_N, guess_N = probs_NC.max(1)
        right_N = guess_N == true_N
        bins_N = (sure_N * _BINS).long().clamp(max=_BINS - 1)
        for row, values_N in enumerate((torch.ones_like(sure_N), sure_N, right_N.float())):
            self._bins_3B[row].index_add_(0, bins_N, values_N.double())
        self._num_classes = count = probs_NC.shape[1]
        if not self._subject.has_counts and count <= MAX_CLASSES:
            counts = torch.bincount(true_N * count + guess_N, minlength=count * count).view(count, count)
            self._counts = counts if self._counts is None else self._counts + counts
        for index in sure_N.masked_fill(right_N, -1).topk(min(_MAX_MISTAKES, len(sure_N))).indices.tolist():
            if not right_N[index]:
                true, guess = int(true_N[index]), int(guess_N[index])
                mine = float(probs_NC[index, true])
                sample = batch.inputs[index].cpu()
                self._mistakes.append((float(sure_N[index]), first + index, true, guess, mine, sample))
        self._mistakes = sorted(self._mistakes, key=lambda one: (-one[0], one[1]))[:_MAX_MISTAKES]

    def sections(self, writer: SvgWriter, where: str) -> str:
        names = class_names(self._subject.spec.get("classes"), self._num_classes)
        shown = []
        for sure, index, true, guess, mine, sample in self._mistakes:
            facts = [("true", names[true]), ("predicted", f"{names[guess]} ({sure:.1%})")]
            facts += [("true class", f"{mine:.1%}"), *self._subject.origin(index)]
            alt = f"{names[true]} taken for {names[guess]}"
            shown.append(card(self._subject.show(sample), alt, facts, self._subject.file(index)))
        wide = not any("<img" in one for one in shown)
        none = f"No mistakes: {where}." if not shown else f"{where}; the ones that the model was surest of."
        mistakes = section("Most confident mistakes", cards(shown, wide), note=none)
        matrix = "" if self._counts is None else confusion(self._counts.tolist(), names, where)
        return matrix + mistakes + self._calibration(writer, where)

    def _calibration(self, writer: SvgWriter, where: str) -> str:
        num_B, sums_B, right_B = self._bins_3B
        total = float(num_B.sum())
        if not total:
            return ""
        error = float((sums_B - right_B).abs().sum()) / total
        bins = [
            (float(s / n), float(r / n), int(n)) if n else (0.0, 0.0, 0)
            for n, s, r in zip(num_B, sums_B, right_B, strict=True)
        ]
        note = f"Expected calibration error {error:.1%}: how far confidence and accuracy are apart, on average."
        chart = reliability_chart(writer, "Accuracy by confidence", bins, note)
        return section("Calibration", grid(chart), note=f"{where}.")
