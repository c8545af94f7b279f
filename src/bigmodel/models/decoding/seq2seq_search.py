"""From an encoder-decoder to a text: greedy decoding, or beam search."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class EncoderDecoder(Protocol):
    """`end` is the token that begins and ends every target of up to `context` tokens."""

    context: int
    end: int

    def encode(self, source_NS: Tensor) -> Any:
        """What is to be known of sources; its `repeated(count)` has each so many times, one after another."""

    def decode(self, target_NT: Tensor, memory: Any, cache: Any = None) -> Tensor:
        """Logits (N, T, V) of each next token. With a cache that holds something, for one more token."""

    def cache(self, count: int) -> Any:
        """Something that keeps what was computed of the tokens that were read, and can `reorder` the targets."""


def beam_search(model: EncoderDecoder, source_NS: Tensor, beam: int, *, cached: bool = True) -> tuple[Tensor, Tensor]:
    """The likeliest targets (N, B, T) of each source, best first, and their log probabilities (N, B).

    Token by token the `beam` likeliest beginnings are followed (Graves 2012, arXiv:1211.3711; Sutskever et al. 2014,
    arXiv:1409.3215); one of them is greedy decoding. Targets are filled up with -1; one that does not end within the
    model's context is cut. Nothing is done about length: a probability is that of the whole text. Where fewer than
    `beam` targets are possible, the rest have log probability -inf.
    """
    count = len(source_NS)
    memory = model.encode(source_NS).repeated(beam)
    cache = model.cache(count * beam) if cached else None
    tokens_RT = source_NS.new_full((count * beam, 1), model.end)  # R = N * B
    odds_NB = torch.full((count, beam), -torch.inf, device=source_NS.device)
    odds_NB[:, 0] = 0.0  # at first all beginnings are the same one
    ended_NB = torch.zeros_like(odds_NB, dtype=torch.bool)
    firsts_N1 = torch.arange(0, count * beam, beam, device=source_NS.device)[:, None]
    for _ in range(model.context + 1):
        logits_RV = model.decode(tokens_RT[:, -1:] if cached else tokens_RT, memory, cache)[:, -1]
        next_NBV = logits_RV.float().log_softmax(1).view(count, beam, -1)
        next_NBV = next_NBV.masked_fill(ended_NB[..., None], -torch.inf)  # what has ended goes on with its end alone
        next_NBV[..., model.end].masked_fill_(ended_NB, 0.0)
        odds_NB, chosen_NB = (odds_NB[..., None] + next_NBV).flatten(1).topk(beam, 1)
        from_NB, token_NB = chosen_NB // next_NBV.shape[2], chosen_NB % next_NBV.shape[2]
        ended_NB = ended_NB.gather(1, from_NB) | (token_NB == model.end)
        rows_R = (firsts_N1 + from_NB).flatten()
        tokens_RT = torch.cat([tokens_RT[rows_R], token_NB.flatten()[:, None]], dim=1)
        if ended_NB.all():
            break
        if cache is not None and beam > 1:
            cache.reorder(rows_R)
    found_RT = tokens_RT[:, 1:]
    return found_RT.masked_fill(found_RT == model.end, -1).view(count, beam, -1), odds_NB
