"""BERT (Devlin et al. 2019, arXiv:1810.04805): a bidirectional encoder that classifies texts or predicts masked tokens.

N texts, T tokens, C channels, V tokens in the vocabulary, K classes. Norms come first in each layer, so that training
from random weights needs no long warm-up; `published_bert` is the encoder whose norms come last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import NonNegativeInt, Positive, PositiveInt, ProperFraction
from bigmodel.models.published_bert import PublishedBertEncoder
from bigmodel.models.transformer import EncoderBlock, init_transformer_weights, masked_mean
from bigmodel.models.weights.bert_names import from_bert, is_bert
from bigmodel.models.weights.foreign_weights import load_weights

__all__ = ["BertClassifier", "MaskedBert"]


class BertEncoder(nn.Module):
    """Tokens (N, T), -1 = padding and V = masked, to (N, 1 + T, C); T is at most `context`.

    Position 0 holds a learned [CLS] vector. Padding tokens are masked out of attention.
    """

    def __init__(self, vocab_size: int, context: int, layers: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size + 2, width, padding_idx=0)  # padding, the vocabulary, the mask
        self.whole_C = nn.Parameter(torch.empty(width))  # [CLS]
        self.positions = nn.Embedding(context + 1, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.whole_C, std=0.02)
        self.apply(init_transformer_weights)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        count, length = tokens_NT.shape
        x_NTC = torch.cat([self.whole_C.expand(count, 1, -1), self.embed(tokens_NT + 1)], dim=1)
        x_NTC = self.dropout(x_NTC + self.positions.weight[: length + 1])
        mask_N11T = F.pad(tokens_NT >= 0, (1, 0), value=True)[:, None, None]
        for block in self.blocks:
            x_NTC = block(x_NTC, mask_N11T)
        return self.norm(x_NTC)  # type: ignore[no-any-return]


class BertClassifier(nn.Module):
    """Tokens (N, T) to logits (N, K), from the [CLS] position (`pool` first) or the mean over tokens.

    `pretrained` is a weights file that `bigmodel-export format=safetensors` wrote for a `MaskedBert` of the same tokens
    and sizes; the head is newly initialized.

    `layout` bert is the encoder of BERT's and RoBERTa's published weights, with `hidden` channels in its MLPs; its
    texts hold their special tokens, [CLS] first. Positions are counted from `first_position` in the published table.

    Raises:
        ValueError: the heads do not divide the width, or the file does not fit.
    """

    def __init__(
        self,
        vocab_size: PositiveInt,
        context: PositiveInt,
        num_classes: PositiveInt,
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
        width: PositiveInt = 128,
        dropout: ProperFraction = 0.1,
        pool: Literal["first", "mean"] = "mean",
        pretrained: str | None = None,
        layout: Literal["pre_norm", "bert"] = "pre_norm",
        hidden: PositiveInt | None = None,
        norm_eps: Positive = 1e-12,
        first_position: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        sizes = vocab_size, context, layers, heads, width, dropout
        self.encoder = BertEncoder(*sizes) if layout == "pre_norm" else PublishedBertEncoder(*sizes, hidden, norm_eps)
        self.context = context
        self.first_position = first_position
        self.first = pool == "first"
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(width, num_classes)
        if pretrained is not None:
            load_weights(self, pretrained)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        x_NTC = self.encoder(tokens_NT)
        of_tokens_NTC = x_NTC if isinstance(self.encoder, PublishedBertEncoder) else x_NTC[:, 1:]
        pooled_NC = x_NTC[:, 0] if self.first else masked_mean(of_tokens_NTC, tokens_NT)
        return self.classify(self.dropout(pooled_NC))  # type: ignore[no-any-return]

    def adapt_state_dict(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Map BERT's names to this model's; return other state dicts unchanged. ValueError for the other layout."""
        if not is_bert(tensors):
            return tensors
        if not isinstance(self.encoder, PublishedBertEncoder):
            raise ValueError("these weights are BERT's; set model.layout=bert")
        return from_bert(tensors, self.context, self.first_position)


class MaskedBert(nn.Module):
    """Tokens (N, T), V where masked, to logits (N, T, V) at each position; output and embedding share their weights.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(
        self,
        vocab_size: PositiveInt,
        context: PositiveInt,
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
        width: PositiveInt = 128,
        dropout: ProperFraction = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = BertEncoder(vocab_size, context, layers, heads, width, dropout)
        self.guess = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias_V = nn.Parameter(torch.zeros(vocab_size))
        self.guess.apply(init_transformer_weights)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        x_NTC = self.guess(self.encoder(tokens_NT)[:, 1:])
        return F.linear(x_NTC, self.encoder.embed.weight[1:-1], self.bias_V)
