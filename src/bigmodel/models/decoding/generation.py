"""Generate tokens one after another with a causal model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

Choose = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
"""Returns the next tokens (N,) from logits (N, V), the tokens so far (N, T), padded with -1 on the left, and their
number in each row."""


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


@runtime_checkable
class ReadsPackedRows(Protocol):
    """A model that keeps several texts of one row apart: (N, T, 2) are tokens, each with its position in its text."""

    reads_packed_rows: bool


def as_decoder(model: nn.Module) -> Decoder:
    """Return the model itself, or its left-to-right form."""
    return model.left_to_right() if isinstance(model, SupportsLeftToRight) else cast(Decoder, model)


def generate(
    model: Decoder,
    tokens_NT: Tensor,
    count: int,
    choose: Choose,
    *,
    cached: bool = True,
    stop: Collection[int] = (),
) -> Tensor:
    """Generate the next `count` tokens (N, count) of sequences; fewer once all have a token of `stop`.

    See `iterate_tokens`.
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
    choose: Choose,
    *,
    cached: bool = True,
    cache: Any = None,
    known: int = 0,
) -> Iterator[Tensor]:
    """Yield the tokens (N,) that follow sequences, without end.

    The model sees at most its context: once that is full, the model reads its second half again and continues, so that
    most tokens cost one step at any length. The cache changes the time only. A `cache` that is given holds the first
    `known` tokens, fewer than there are.

    Shorter sequences are padded with -1 on the left, for a model that reads packed rows. The longest decides when the
    context is full.
    """
    begin = max(0, tokens_NT.shape[1] - model.context)
    given, cache = (cache, None) if cached and not begin else (None, None)
    padding_N = (tokens_NT < 0).sum(1)
    paddings = padding_N.tolist()
    is_padded = any(paddings)
    while True:
        length = tokens_NT.shape[1]
        if length - begin > model.context:
            begin, cache = length - max(1, model.context // 2), None
        first = length - 1
        if given is not None:
            cache, given, first = given, None, known
        elif cache is None or not cached:
            cache, first = model.cache(len(tokens_NT)) if cached else None, begin
        inputs = tokens_NT[:, first:]
        if is_padded:
            positions_NT = torch.arange(first, length, device=inputs.device) - padding_N.clamp(min=begin)[:, None]
            inputs = torch.stack([inputs, positions_NT.clamp(min=-1)], dim=2)
        token_N = choose(model(inputs, cache)[:, -1], tokens_NT, [length - padding for padding in paddings])
        tokens_NT = torch.cat([tokens_NT, token_N[:, None]], dim=1)
        yield token_N
