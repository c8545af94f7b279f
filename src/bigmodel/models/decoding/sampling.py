"""Draw the next token from a model's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from bigmodel.constraints import Bounds, NonNegative, PositiveInt, Seed
from bigmodel.seeds import derive

__all__ = ["Sampling", "TextSampling"]


@dataclass(frozen=True)
class Sampling:
    """Temperature, then the `top_k` most probable tokens, then the nucleus `top_p` (Holtzman et al. 2020,
    arXiv:1904.09751). Temperature 0 takes the most probable token.
    """

    temperature: NonNegative = 1.0
    top_k: PositiveInt | None = None
    top_p: Annotated[float, Bounds(above=0, at_most=1)] | None = None
    seed: Seed = 0

    def choose(self, logits_NV: Tensor, position: int) -> Tensor:
        """Draw tokens, int64 (N,): a pure function of the logits, the seed and the position in the sequence."""
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
        generator = torch.Generator(probs_NV.device).manual_seed(derive(self.seed, "sample", position))
        return torch.multinomial(probs_NV, 1, generator=generator)[:, 0]


@dataclass(frozen=True)
class TextSampling(Sampling):
    """Sampling of a text, whose length is chosen."""

    max_new_tokens: PositiveInt = 200
