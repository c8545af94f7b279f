"""Convolutions over a sentence, the best place of each (Kim 2014, arXiv:1408.5882).

N sentences, T tokens, E values a word, F filters of each width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction

__all__ = ["TextCNN"]


class TextCNN(nn.Module):
    """Tokens (N, T), filled up with -1, to logits (N, C): filters over so many words at once as `windows` says, the
    largest value of each over time, dropout, one linear layer. Words too may drop out of training sentences.

    Raises:
        ValueError: there are no windows.
    """

    def __init__(
        self,
        vocab_size: PositiveInt,
        num_classes: PositiveInt,
        width: PositiveInt = 100,
        filters: PositiveInt = 100,
        windows: Sequence[PositiveInt] = (3, 4, 5),
        dropout: ProperFraction = 0.5,
        word_dropout: ProperFraction = 0.0,
    ) -> None:
        super().__init__()
        if not windows:
            raise ValueError("windows: there are none")
        self.embed = nn.Embedding(vocab_size + 1, width, padding_idx=0)  # 0: padding, always zeros
        self.convs = nn.ModuleList(nn.Conv1d(width, filters, window) for window in windows)
        self.windows = windows
        self.words, self.dropout = nn.Dropout1d(word_dropout), nn.Dropout(dropout)
        self.head = nn.Linear(filters * len(windows), num_classes)
        nn.init.uniform_(
            self.embed.weight[1:], -0.25, 0.25
        )  # as Kim; torch's own are seven times as large, and learn slowly

    def forward(self, tokens_NT: Tensor) -> Tensor:
        x_NET = self.words(self.embed(tokens_NT + 1)).transpose(1, 2)
        best = [_best(conv, window, x_NET) for conv, window in zip(self.convs, self.windows, strict=True)]
        return self.head(self.dropout(torch.cat(best, dim=1)))  # type: ignore[no-any-return]


def _best(conv: nn.Module, window: int, x_NET: Tensor) -> Tensor:
    """(N, F). One window of nothing but padding is always among them, so that more padding changes nothing."""
    return F.relu(conv(F.pad(x_NET, (window - 1, window))).amax(2))
