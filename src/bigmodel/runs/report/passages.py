"""Sections about a language model: passages shaded by how surprising each token was, and a text that it continues."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from time import monotonic
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.datasets.text.tokenizers import tokenizer_from_spec
from bigmodel.interfaces import Batch
from bigmodel.models.decoding.generation import as_decoder, generate
from bigmodel.models.decoding.sampling import TextSampling
from bigmodel.runs.report.html import escape, section
from bigmodel.runs.report.predictions import Subject
from bigmodel.runs.report.svg import SvgWriter

_MAX_TOKENS = 300  # of a passage
_MAX_SAMPLES = 8  # of a batch: of a large vocabulary each takes as much memory again as the logits
_PROMPT = 40  # tokens
_CONTINUED = 200  # tokens, where there is time for them
_CHUNK = 20  # tokens that are generated between two looks at the clock
_STRONGEST = 70  # percent of color of a token
_SURPRISE = 8.0  # nats from which a token has all of it
_MAX_PARTS = 4  # of a letter
_BROKEN = "\ufffd"  # a part of a letter, of a tokenizer of bytes


@dataclass(frozen=True)
class _Passage:
    loss: float
    index: int
    tokens: Tensor
    losses: Tensor


class PassageInspector:
    """Keeps the most and the least surprising passage, and the first."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        spec = subject.spec.get("tokenizer")
        self._tokenizer: Any = tokenizer_from_spec(spec) if spec is not None else None  # None: tokens are no text
        self._kept: dict[str, _Passage] = {}

    def add(self, batch: Batch, outputs: Tensor, first: int) -> None:
        if self._tokenizer is None or outputs.ndim != 3:
            return
        targets_NT = batch.targets[:_MAX_SAMPLES, :_MAX_TOKENS].long()
        losses_NT = F.cross_entropy(
            outputs[:_MAX_SAMPLES, :_MAX_TOKENS].transpose(1, 2).float(), targets_NT, ignore_index=-1, reduction="none"
        )
        known_NT = targets_NT >= 0
        means_N = (losses_NT.sum(1) / known_NT.sum(1).clamp(min=1)).cpu()
        for title, index in (("hardest", int(means_N.argmax())), ("easiest", int(means_N.argmin()))):
            found = _Passage(
                float(means_N[index]), first + index, targets_NT[index].cpu(), losses_NT[index].float().cpu()
            )
            old = self._kept.get(title)
            if old is None or (found.loss > old.loss) == (title == "hardest"):
                self._kept[title] = found

    def sections(self, writer: SvgWriter, where: str) -> str:
        if not self._kept:
            return ""
        parts = []
        for title, one in self._kept.items():
            perplexity = math.exp(min(one.loss, 99.0))
            head = f"<h3>The {title} passage: {one.loss:.2f} nats a token, perplexity {perplexity:.1f}</h3>"
            parts.append(f'{head}<div class="passage">{self._shade(one)}</div>')
        note = f"{where}. The stronger the color, the less the model expected a token."
        return section("Passages", *parts, note=note) + self._continuation()

    def _shade(self, passage: _Passage) -> str:
        parts = []
        known_T = passage.tokens >= 0
        losses = passage.losses[known_T].tolist()
        for text, places in pieces(self._tokenizer, passage.tokens[known_T].tolist()):
            loss = fmean(losses[place] for place in places)
            share = _STRONGEST * min(1.0, loss / _SURPRISE)
            parts.append(f'<mark style="--v:{share:.0f}%" title="{loss:.2f} nats">{escape(text)}</mark>')
        return "".join(parts)

    def _continuation(self) -> str:
        """Return how the model continues the beginning of the easiest passage, as long as there is time."""
        decoder = as_decoder(self._subject.model)
        if not hasattr(decoder, "cache"):
            return ""
        tokens = self._kept["easiest"].tokens
        prompt_T = tokens[tokens >= 0][:_PROMPT]
        tokens_1T = prompt_T[None].to(self._subject.device.torch_device)
        sampling = TextSampling(temperature=0.8)
        deadline = monotonic() + self._subject.budget_s / 2
        with torch.inference_mode(), self._subject.device.autocast():
            while tokens_1T.shape[1] < len(prompt_T) + _CONTINUED and monotonic() < deadline:
                tokens_1T = torch.cat([tokens_1T, generate(decoder, tokens_1T, _CHUNK, sampling.choose)], dim=1)
        prompt, new = (self._tokenizer.decode(part.tolist()) for part in (prompt_T, tokens_1T[0, len(prompt_T) :]))
        text = f'<div class="passage"><b>{escape(prompt)}</b>{escape(new)}</div>' if new else ""
        note = "The bold beginning is of the data, the rest was drawn from the model at temperature 0.8."
        return section("A continued text", text, note=note) if text else ""


def pieces(tokenizer: Any, tokens: Sequence[int]) -> Iterator[tuple[str, range]]:
    """Yield the text of each token with its place; tokens that are parts of one letter come together."""
    first, before = 0, ""
    for end in range(1, 1 + len(tokens)):
        text = tokenizer.decode(tokens[:end])
        if text.endswith(_BROKEN) and end - first < _MAX_PARTS and end < len(tokens):
            continue
        yield text[len(before) :], range(first, end)
        first, before = end, text
