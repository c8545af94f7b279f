"""Sections about tokens that were hidden from a model: texts with its guesses, and the tokens that it misses most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.formatting import format_count
from bigmodel.interfaces import Batch
from bigmodel.runs.report.html import escape, section, table
from bigmodel.runs.report.media import card, cards
from bigmodel.runs.report.passages import pieces
from bigmodel.runs.report.predictions import Subject
from bigmodel.runs.report.svg import SvgWriter
from bigmodel.tasks.masked_language_modelling import MaskedPrediction

_MAX_SAMPLES = 8  # of a batch: they are predicted a second time, because the task's loss keeps only counts
_MAX_TEXTS = 8
_MAX_ROWS = 12


@dataclass(frozen=True)
class _Text:
    sure: float  # confidence of the surest wrong guess
    index: int
    tokens: Sequence[int]
    guesses: dict[int, tuple[int, float]]  # by position: token and confidence


class HiddenTokenInspector:
    """Keeps the texts with the surest wrong guesses, and counts the guesses of each token."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        spec = subject.spec.get("tokenizer")
        self._tokenizer: Any = tokenizer_from_spec(spec) if spec is not None else None
        self._texts: list[_Text] = []
        self._pairs: Counter[tuple[int, int]] = Counter()  # true token and guess
        self._seen = 0

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        if self._tokenizer is None:
            return
        task, tokens_NT = cast(MaskedPrediction, self._subject.task), batch.inputs[:_MAX_SAMPLES]
        with self._subject.device.autocast():
            logits_NMV, positions_NM, targets_NM = task.predict_hidden(self._subject.model, tokens_NT)
        sure_NM, guess_NM = logits_NMV.float().softmax(2)[..., : self._tokenizer.size].max(2)
        self._seen += len(tokens_NT)
        for row, tokens_T in enumerate(tokens_NT.tolist()):
            columns = (one[row].tolist() for one in (positions_NM, targets_NM, guess_NM, sure_NM))
            asked = [one for one in zip(*columns, strict=True) if one[1] >= 0]
            self._pairs.update((true, guess) for _, true, guess, _ in asked)
            wrong = [sure for _, true, guess, sure in asked if true != guess]
            if wrong:
                guesses = {position: (guess, sure) for position, _, guess, sure in asked}
                self._texts.append(_Text(max(wrong), first + row, [t for t in tokens_T if t >= 0], guesses))
        self._texts = sorted(self._texts, key=lambda one: (-one.sure, one.index))[:_MAX_TEXTS]

    def sections(self, writer: SvgWriter, where: str) -> str:
        total = self._pairs.total()
        if not total:
            return ""
        right = sum(count for (true, guess), count in self._pairs.items() if true == guess)
        note = f"{where}. In {self._seen:,} of them {right:,} of {format_count(total, 'hidden token')} were guessed."
        if self._texts:
            note += " A hidden token is underlined, the wrong guess before it crossed out; the surest wrong ones first."
        shown = [card(facts=self._subject.origin(one.index), marked=self._mark(one)) for one in self._texts]
        return section("Hidden tokens", cards(shown, wide=True), self._missed(), note=note)

    def _mark(self, text: _Text) -> str:
        parts = []
        for piece, places in pieces(self._tokenizer, text.tokens):
            found = [text.guesses[place] for place in places if place in text.guesses]
            if not found:
                parts.append(escape(piece))
                continue
            word = piece.lstrip(" ")
            parts.append(" " * (len(piece) - len(word)))
            true = [text.tokens[place] for place in places if place in text.guesses]
            guess = self._tokenizer.decode([token for token, _ in found])
            title = f"{escape(guess, 60)} ({found[0][1]:.1%})"
            if true != [token for token, _ in found]:
                parts.append(f"<del>{escape(guess)}</del>")
            parts.append(f'<ins title="guessed: {title}">{escape(word)}</ins>')
        return "".join(parts)

    def _missed(self) -> str:
        hidden: Counter[int] = Counter()
        missed: Counter[int] = Counter()
        taken: dict[int, Counter[int]] = {}
        for (true, guess), count in self._pairs.items():
            hidden[true] += count
            if true != guess:
                missed[true] += count
                taken.setdefault(true, Counter())[guess] += count
        rows = [
            [self._name(true), str(hidden[true]), str(count), self._name(taken[true].most_common(1)[0][0])]
            for true, count in sorted(missed.items(), key=lambda pair: (-pair[1], pair[0]))[:_MAX_ROWS]
        ]
        listed = table(["token", "hidden", "missed", "most often taken for"], rows)
        return f"<h3>Most missed tokens</h3>{listed}" if rows else ""

    def _name(self, token: int) -> str:
        text = str(self._tokenizer.decode([token]))
        return text if text.strip() else repr(text)
