"""Convolutions over a sentence with max pooling over time (Kim 2014, arXiv:1408.5882).

N sentences, T tokens, E embedding values, F filters of each width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction

__all__ = ["TextCNN"]


class TextCNN(nn.Module):
    """Tokens (N, T), -1 = padding, to logits (N, C).

    Filters span as many words as `windows` lists; max pooling over time, dropout and a linear layer follow.
    `word_dropout` drops whole words from training sentences.

    Raises:
        ValueError: `windows` is empty.
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
            raise ValueError("windows: must not be empty")
        self.embed = nn.Embedding(vocab_size + 1, width, padding_idx=0)  # 0: padding, always zeros
        self.convs = nn.ModuleList(nn.Conv1d(width, filters, window) for window in windows)
        self.windows = windows
        self.words = nn.Dropout1d(word_dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(filters * len(windows), num_classes)
        # Kim's initialization; torch's default is seven times as large and learns slowly
        nn.init.uniform_(self.embed.weight[1:], -0.25, 0.25)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        x_NET = self.words(self.embed(tokens_NT + 1)).transpose(1, 2)
        pooled = [_max_over_time(conv, window, x_NET) for conv, window in zip(self.convs, self.windows, strict=True)]
        return self.head(self.dropout(torch.cat(pooled, dim=1)))  # type: ignore[no-any-return]


def _max_over_time(conv: nn.Module, window: int, x_NET: Tensor) -> Tensor:
    """Return the largest activations (N, F). One window is all padding, so that more padding changes nothing."""
    return F.relu(conv(F.pad(x_NET, (window - 1, window))).amax(2))
