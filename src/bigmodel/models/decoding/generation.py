"""Generate tokens one after another with a causal model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn


class Decoder(Protocol):
    """Causal model: tokens (N, T), T at most `context`, to logits (N, T, V)."""

    context: int

    def cache(self, count: int) -> Any:
        """Return an empty cache for `count` sequences, which keeps what the model computed for past tokens."""

    def __call__(self, tokens_NT: Tensor, cache: Any = None) -> Tensor:
        """Return logits; with a cache, of tokens that follow those in it: if it is not empty, one (N, 1)."""


@runtime_checkable
class SupportsLeftToRight(Protocol):
    """A model of tokens in any order that can also run from left to right."""

    def left_to_right(self) -> Decoder:
        """Return a causal model that shares this model's weights."""


def as_decoder(model: nn.Module) -> Decoder:
    """Return the model itself, or its left-to-right form."""
    return model.left_to_right() if isinstance(model, SupportsLeftToRight) else cast(Decoder, model)


def generate(
    model: Decoder,
    tokens_NT: Tensor,
    count: int,
    choose: Callable[[Tensor, int], Tensor],
    *,
    cached: bool = True,
    stop: Collection[int] = (),
) -> Tensor:
    """Generate the next `count` tokens (N, count) of sequences of equal length; fewer once all have a token of `stop`.

    `choose` takes logits (N, V) and a position. See `iterate_tokens`.
    """
    made = []
    ended_N = torch.zeros(len(tokens_NT), dtype=torch.bool, device=tokens_NT.device)
    stops = torch.tensor([*stop], device=tokens_NT.device)
    for token_N in islice(iterate_tokens(model, tokens_NT, choose, cached=cached), count):
        made.append(token_N)
        if stop:
            ended_N |= torch.isin(token_N, stops)
            if ended_N.all():
                break
    return torch.stack(made, dim=1)


def iterate_tokens(
    model: Decoder,
    tokens_NT: Tensor,
    choose: Callable[[Tensor, int], Tensor],
    *,
    cached: bool = True,
    cache: Any = None,
    known: int = 0,
) -> Iterator[Tensor]:
    """Yield the tokens (N,) that follow sequences of equal length, without end.

    The model sees at most its context: once that is full, the model reads its second half again and continues, so that
    most tokens cost one step at any length. The cache changes the time only. A `cache` that is given holds the first
    `known` tokens, fewer than there are.
    """
    begin = max(0, tokens_NT.shape[1] - model.context)
    given, cache = (cache, None) if cached and not begin else (None, None)
    while True:
        length = tokens_NT.shape[1]
        if length - begin > model.context:
            begin, cache = length - max(1, model.context // 2), None
        if given is not None:
            cache, given = given, None
            logits_NV = model(tokens_NT[:, known:], cache)[:, -1]
        elif cache is None or not cached:
            cache = model.cache(len(tokens_NT)) if cached else None
            logits_NV = model(tokens_NT[:, begin:], cache)[:, -1]
        else:
            logits_NV = model(tokens_NT[:, -1:], cache)[:, -1]
        token_N = choose(logits_NV, length)
        tokens_NT = torch.cat([tokens_NT, token_N[:, None]], dim=1)
        yield token_N
