"""Sections about texts that a model writes down: transcribed clips and translated texts, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from torch import Tensor

from bigmodel.inference.shown import Shown
from bigmodel.interfaces import Batch
from bigmodel.models.decoding.ctc import greedy_decode
from bigmodel.runs.report.html import escape, section
from bigmodel.runs.report.media import card, cards
from bigmodel.runs.report.predictions import Subject
from bigmodel.runs.report.svg import SvgWriter
from bigmodel.tasks.ctc import to_text

_MAX_MISTAKES = 8
_MAX_TEXT = 600  # letters that are compared

_Mistake = tuple[float, int, str, str, Tensor]  # share of wrong letters, number, true, found, sample


class _TextInspector:
    """Base: compares found texts with the true ones, and keeps the worst."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._worst: list[_Mistake] = []
        self._exact = self._seen = 0

    def _compare(self, found: Sequence[str], true: Sequence[str], inputs: Tensor, first: int) -> None:
        for index, (said, meant) in enumerate(zip(found, true, strict=True)):
            self._seen += 1
            self._exact += said == meant
            if said != meant:
                likeness = SequenceMatcher(None, said[:_MAX_TEXT], meant[:_MAX_TEXT], autojunk=False).ratio()
                self._worst.append((1 - likeness, first + index, meant, said, inputs[index]))
        self._worst = sorted(self._worst, key=lambda one: (-one[0], one[1]))[:_MAX_MISTAKES]

    def sections(self, writer: SvgWriter, where: str) -> str:
        shown = []
        for _, index, true, found, sample in self._worst:
            file = self._subject.file(index)
            facts = [("true", true), ("written", found or "(nothing)"), *self._subject.origin(index)]
            shown.append(card(self._subject.show(sample.cpu()), true, facts, file, marks(found, true)))
        note = f"{where}: {self._exact:,} of {self._seen:,} without any mistake."
        legend = " Crossed out is written by mistake, underlined is missing." if shown else ""
        return section("Worst texts", cards(shown, wide=True), note=note + legend)


class TranscriptInspector(_TextInspector):
    """Collects greedy transcripts of a CTC model."""

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        characters = str(self._subject.spec.get("characters", ""))
        found = [to_text(row, characters) for row in greedy_decode(outputs).tolist()]
        true = [to_text(row, characters) for row in batch.targets.tolist()]
        self._compare(found, true, batch.inputs, first)


class TranslationInspector(_TextInspector):
    """Collects greedy translations, which the task's loss returns beside its likeliest tokens."""

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        show = getattr(self._subject.processor, "show", lambda tokens: Shown(str(tokens.tolist())))
        found, true = ([show(row.int()).text for row in rows] for rows in (outputs[:, 1], batch.targets))
        self._compare(found, true, batch.inputs, first)


def marks(found: str, true: str) -> str:
    """Return a found text as HTML: what is wrong in it crossed out, what is missing inserted."""
    said, meant = found[:_MAX_TEXT], true[:_MAX_TEXT]
    parts = []
    for kind, a, b, c, d in SequenceMatcher(None, said, meant, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(escape(said[a:b]))
        else:
            parts.append(f"<del>{escape(said[a:b])}</del>" if b > a else "")
            parts.append(f"<ins>{escape(meant[c:d])}</ins>" if d > c else "")
    return "".join(parts)
