"""Decode the outputs of a CTC model: greedily, or by prefix beam search.

Sequences are class indices, padded with -1; class 0 is the blank and never part of a sequence.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor

_LOG_ZERO = -math.inf
_Beams = dict[tuple[int, ...], tuple[float, float]]


def greedy_decode(logits_NTC: Tensor) -> Tensor:
    """Take the most probable class of each frame, merge repetitions and drop blanks: int64 (N, T)."""
    best_NT = logits_NTC.argmax(2)
    repeated_NT = torch.zeros_like(best_NT, dtype=torch.bool)
    repeated_NT[:, 1:] = best_NT[:, 1:] == best_NT[:, :-1]
    kept_NT = (best_NT != 0) & ~repeated_NT
    order_NT = (~kept_NT).to(torch.uint8).sort(dim=1, stable=True).indices  # kept frames first, in order
    return best_NT.masked_fill(~kept_NT, -1).gather(1, order_NT)


def beam_search(log_probs_TC: Tensor, width: int) -> list[tuple[tuple[int, ...], float]]:
    """Return the most probable sequences with their log probabilities, best first.

    Prefix beam search (Graves 2012; Hannun et al. 2014, arXiv:1408.2873), which sums over the alignments of a sequence
    and keeps `width` prefixes at each frame. `log_probs_TC` are log probabilities of each frame's classes. Takes
    O(T * width * C) time, in Python.
    """
    beams: _Beams = {(): (0.0, _LOG_ZERO)}  # log probability that a prefix ends in a blank, and in its class
    for frame_C in log_probs_TC.tolist():
        extended: _Beams = defaultdict(lambda: (_LOG_ZERO, _LOG_ZERO))
        for prefix, (blank, last) in beams.items():
            either = _log_add(blank, last)
            old_blank, old_last = extended[prefix]
            stays = last + frame_C[prefix[-1]] if prefix else _LOG_ZERO
            extended[prefix] = _log_add(old_blank, either + frame_C[0]), _log_add(old_last, stays)
            for symbol in range(1, len(frame_C)):
                repeats = bool(prefix) and symbol == prefix[-1]  # a repetition needs a blank in between
                longer = (*prefix, symbol)
                old_blank, old_last = extended[longer]
                extended[longer] = old_blank, _log_add(old_last, (blank if repeats else either) + frame_C[symbol])
        ranked = sorted(extended.items(), key=lambda item: -_log_add(*item[1]))
        beams = dict(ranked[:width])
    return [(prefix, _log_add(*ends)) for prefix, ends in beams.items()]


def _log_add(first: float, second: float) -> float:
    """Return log(exp(first) + exp(second))."""
    high, low = max(first, second), min(first, second)
    return high if low == _LOG_ZERO else high + math.log1p(math.exp(low - high))
