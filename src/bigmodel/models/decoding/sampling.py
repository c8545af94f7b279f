"""Draw the next token from a model's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from bigmodel.constraints import Bounds, Fraction, NonNegative, Positive, PositiveInt, Seed
from bigmodel.seeds import derive

__all__ = ["Sampling", "TextSampling"]


@dataclass(frozen=True)
class Sampling:
    """Temperature, then the `top_k` most probable tokens, then the nucleus `top_p` (Holtzman et al. 2020,
    arXiv:1904.09751), then those at least `min_p` times as probable as the first (Nguyen et al. 2024,
    arXiv:2407.01082). Temperature 0 takes the most probable token.
    """

    temperature: NonNegative = 1.0
    top_k: PositiveInt | None = None
    top_p: Annotated[float, Bounds(above=0, at_most=1)] | None = None
    min_p: Fraction = 0.0
    seed: Seed = 0

    def choose(self, logits_NV: Tensor, tokens_NT: Tensor, lengths: Sequence[int]) -> Tensor:
        """Draw the tokens that follow, int64 (N,): of each row a pure function of its logits, the seed and its length.

        Other rows of the batch have no influence.
        """
        if self.temperature == 0:
            return logits_NV.argmax(1)
        logits_NV = logits_NV.float() / self.temperature
        if self.top_k is not None and self.top_k < logits_NV.shape[1]:
            least_N1 = logits_NV.topk(self.top_k).values[:, -1:]
            logits_NV = logits_NV.masked_fill(logits_NV < least_N1, -torch.inf)
        probs_NV = logits_NV.softmax(1)
        if self.top_p is not None:
            sorted_NV, order_NV = probs_NV.sort(dim=1, descending=True, stable=True)
            beyond_NV = sorted_NV.cumsum(1) - sorted_NV >= self.top_p  # never the first token
            probs_NV = probs_NV.masked_fill(torch.zeros_like(beyond_NV).scatter(1, order_NV, beyond_NV), 0.0)
        if self.min_p:
            probs_NV = probs_NV.masked_fill(probs_NV < self.min_p * probs_NV.amax(1, keepdim=True), 0.0)
        generator = torch.Generator(probs_NV.device)
        drawn = [
            torch.multinomial(probs_V, 1, generator=generator.manual_seed(derive(self.seed, "sample", length)))
            for probs_V, length in zip(probs_NV, lengths, strict=True)
        ]
        return torch.cat(drawn)


@dataclass(frozen=True)
class TextSampling(Sampling):
    """Sampling of a text of at most `max_new_tokens`, which ends before the first of the strings `stop`.

    The logits of tokens that the text or its prompt holds are divided by `repetition_penalty`, or multiplied where they
    are negative (Keskar et al. 2019, arXiv:1909.05858).
    """

    max_new_tokens: PositiveInt = 200
    repetition_penalty: Positive = 1.0
    stop: str | Sequence[str] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end a text."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(one for one in given if one)

    def choose(self, logits_NV: Tensor, tokens_NT: Tensor, lengths: Sequence[int]) -> Tensor:
        if self.repetition_penalty != 1:
            logits_NV = _penalize(logits_NV, tokens_NT, self.repetition_penalty)
        return super().choose(logits_NV, tokens_NT, lengths)


def _penalize(logits_NV: Tensor, tokens_NT: Tensor, penalty: float) -> Tensor:
    size = logits_NV.shape[1]
    seen_NX = logits_NV.new_zeros(len(logits_NV), size + 1, dtype=torch.bool)  # the last column is padding's
    seen_NV = seen_NX.scatter(1, tokens_NT.where(tokens_NT >= 0, size), True)[:, :size]
    return torch.where(seen_NV, torch.where(logits_NV < 0, logits_NV * penalty, logits_NV / penalty), logits_NV)
