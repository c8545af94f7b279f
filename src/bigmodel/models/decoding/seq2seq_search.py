"""Beam search over the targets of an encoder-decoder."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class EncoderDecoder(Protocol):
    """Encoder-decoder model. `end` is the token that begins and ends every target of up to `context` tokens."""

    context: int
    end: int

    def encode(self, source_NS: Tensor) -> Any:
        """Encode sources; the result's `repeat(count)` holds each source `count` times in succession."""

    def decode(self, target_NT: Tensor, memory: Any, cache: Any = None) -> Tensor:
        """Return logits (N, T, V). With a cache that is not empty, `target_NT` is the one next token (N, 1)."""

    def cache(self, count: int) -> Any:
        """Return an empty cache for `count` targets, whose `reorder(rows)` permutes them."""


def beam_search(model: EncoderDecoder, source_NS: Tensor, beam: int, *, cached: bool = True) -> tuple[Tensor, Tensor]:
    """Return the most probable targets (N, B, T) of each source, best first, and their log probabilities (N, B).

    The search keeps the `beam` most probable prefixes (Graves 2012, arXiv:1211.3711; Sutskever et al. 2014,
    arXiv:1409.3215); beam 1 is greedy decoding.

    - Targets are padded with -1; a target that does not end within the model's context is truncated.
    - Log probabilities are of the whole text, without a length penalty.
    - Where fewer than `beam` targets exist, the rest have log probability -inf.
    """
    count = len(source_NS)
    memory = model.encode(source_NS).repeat(beam)
    cache = model.cache(count * beam) if cached else None
    tokens_RT = source_NS.new_full((count * beam, 1), model.end)  # R = N * B
    log_probs_NB = torch.full((count, beam), -torch.inf, device=source_NS.device)
    log_probs_NB[:, 0] = 0.0  # at first all prefixes are equal
    ended_NB = torch.zeros_like(log_probs_NB, dtype=torch.bool)
    first_row_N1 = torch.arange(0, count * beam, beam, device=source_NS.device)[:, None]
    for _ in range(model.context + 1):
        logits_RV = model.decode(tokens_RT[:, -1:] if cached else tokens_RT, memory, cache)[:, -1]
        next_NBV = logits_RV.float().log_softmax(1).view(count, beam, -1)
        next_NBV = next_NBV.masked_fill(ended_NB[..., None], -torch.inf)  # an ended target only repeats its end
        next_NBV[..., model.end].masked_fill_(ended_NB, 0.0)
        log_probs_NB, choice_NB = (log_probs_NB[..., None] + next_NBV).flatten(1).topk(beam, 1)
        parent_NB, token_NB = choice_NB // next_NBV.shape[2], choice_NB % next_NBV.shape[2]
        ended_NB = ended_NB.gather(1, parent_NB) | (token_NB == model.end)
        rows_R = (first_row_N1 + parent_NB).flatten()
        tokens_RT = torch.cat([tokens_RT[rows_R], token_NB.flatten()[:, None]], dim=1)
        if ended_NB.all():
            break
        if cache is not None and beam > 1:
            cache.reorder(rows_R)
    targets_RT = tokens_RT[:, 1:]
    return targets_RT.masked_fill(targets_RT == model.end, -1).view(count, beam, -1), log_probs_NB
