"""A text goes on: one token after another, each drawn from what the model says of all before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn


class Decoder(Protocol):
    """A causal model: tokens (N, T), T at most `context`, to logits (N, T, V)."""

    context: int

    def cache(self, count: int) -> Any:
        """Something that keeps what was computed of the tokens that were read."""

    def __call__(self, tokens_NT: Tensor, cache: Any = None) -> Tensor:
        """With a cache that holds something, for one more token."""


@runtime_checkable
class SupportsLeftToRight(Protocol):
    """A model that predicts tokens in any order."""

    def left_to_right(self) -> Decoder:
        """The same as a model of the next token."""


def as_decoder(model: nn.Module) -> Decoder:
    """The model itself, or what it is when it goes from left to right."""
    return model.left_to_right() if isinstance(model, SupportsLeftToRight) else cast(Decoder, model)


def generate(
    model: Decoder, tokens_NT: Tensor, count: int, choose: Callable[[Tensor, int], Tensor], *, cached: bool = True
) -> Tensor:
    """The next `count` tokens (N, count) of sequences of equal length. `choose` takes logits (N, V) and a position.

    The model sees at most its context. A text that fills it is read anew from the middle of it on, so that most tokens
    cost one step however long the text is, and the cache changes nothing but the time.
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
