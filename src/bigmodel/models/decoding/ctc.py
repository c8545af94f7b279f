"""From the outputs of a CTC model to a sequence, and how far that is from the true one.

Sequences are class numbers, filled up with -1; class 0 is the blank and in no sequence.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor

_NEVER = -math.inf
_Beams = dict[tuple[int, ...], tuple[float, float]]


def greedy_decode(logits_NTC: Tensor) -> Tensor:
    """int64 (N, T): the likeliest class of each frame, repetitions taken as one and blanks left out."""
    best_NT = logits_NTC.argmax(2)
    repeated_NT = torch.zeros_like(best_NT, dtype=torch.bool)
    repeated_NT[:, 1:] = best_NT[:, 1:] == best_NT[:, :-1]
    kept_NT = (best_NT != 0) & ~repeated_NT
    order_NT = (~kept_NT).to(torch.uint8).sort(dim=1, stable=True).indices  # the kept ones first, in their order
    return best_NT.masked_fill(~kept_NT, -1).gather(1, order_NT)


def beam_search(log_odds_TC: Tensor, width: int) -> list[tuple[tuple[int, ...], float]]:
    """The likeliest sequences with their log probabilities, best first: prefix beam search (Graves 2012; Hannun et al.
    2014, arXiv:1408.2873), which adds up the ways to align a sequence. Of a frame, `width` sequences are followed.

    `log_odds_TC` are log probabilities of each frame's classes. Takes time in the order of T * width * C, in Python.
    """
    beams: _Beams = {(): (0.0, _NEVER)}  # log probability of a prefix that ends in a blank, and in its last class
    for frame_C in log_odds_TC.tolist():
        grown: _Beams = defaultdict(lambda: (_NEVER, _NEVER))
        for prefix, (blank, last) in beams.items():
            either = _sum(blank, last)
            old_blank, old_last = grown[prefix]
            stays = last + frame_C[prefix[-1]] if prefix else _NEVER
            grown[prefix] = _sum(old_blank, either + frame_C[0]), _sum(old_last, stays)
            for symbol in range(1, len(frame_C)):
                repeats = bool(prefix) and symbol == prefix[-1]  # only after a blank is it a second one
                longer = (*prefix, symbol)
                old_blank, old_last = grown[longer]
                grown[longer] = old_blank, _sum(old_last, (blank if repeats else either) + frame_C[symbol])
        best = sorted(grown.items(), key=lambda item: -_sum(*item[1]))
        beams = dict(best[:width])
    return [(prefix, _sum(*ends)) for prefix, ends in beams.items()]


def _sum(first: float, second: float) -> float:
    """log(exp(first) + exp(second))."""
    high, low = max(first, second), min(first, second)
    return high if low == _NEVER else high + math.log1p(math.exp(low - high))
