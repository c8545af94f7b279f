"""Generate tokens one after another with a causal model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn


class Decoder(Protocol):
    """Causal model: tokens (N, T), T at most `context`, to logits (N, T, V)."""

    context: int

    def cache(self, count: int) -> Any:
        """Return an empty cache for `count` sequences, which keeps what the model computed for past tokens."""

    def __call__(self, tokens_NT: Tensor, cache: Any = None) -> Tensor:
        """Return logits. With a cache that is not empty, `tokens_NT` is the one next token (N, 1)."""


@runtime_checkable
class SupportsLeftToRight(Protocol):
    """A model of tokens in any order that can also run from left to right."""

    def left_to_right(self) -> Decoder:
        """Return a causal model that shares this model's weights."""


def as_decoder(model: nn.Module) -> Decoder:
    """Return the model itself, or its left-to-right form."""
    return model.left_to_right() if isinstance(model, SupportsLeftToRight) else cast(Decoder, model)


def generate(
    model: Decoder, tokens_NT: Tensor, count: int, choose: Callable[[Tensor, int], Tensor], *, cached: bool = True
) -> Tensor:
    """Generate the next `count` tokens (N, count) of sequences of equal length.

    `choose` takes logits (N, V) and a position. The model sees at most its context: once that is full, the model reads
    its second half again and continues, so that most tokens cost one step at any length. The cache changes the time
    only.
    """
    begin = max(0, tokens_NT.shape[1] - model.context)
    cache = None
    for _ in range(count):
        length = tokens_NT.shape[1]
        if length - begin > model.context:
            begin, cache = length - max(1, model.context // 2), None
        if cache is None or not cached:
            cache = model.cache(len(tokens_NT)) if cached else None
            logits_NV = model(tokens_NT[:, begin:], cache)[:, -1]
        else:
            logits_NV = model(tokens_NT[:, -1:], cache)[:, -1]
        tokens_NT = torch.cat([tokens_NT, choose(logits_NV, length)[:, None]], dim=1)
    return tokens_NT[:, tokens_NT.shape[1] - count :]
