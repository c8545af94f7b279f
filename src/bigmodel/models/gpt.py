"""Decoder-only transformer (Vaswani et al. 2017, arXiv:1706.03762): predicts the next token.

N sequences, T tokens, C channels, D channels of a head, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.models.transformer import (
    KVCache,
    TransformerBlock,
    init_transformer_weights,
    norm,
    rotary_table,
    scale_residual_init,
    slice_rotary,
)
from bigmodel.models.weights.gpt2_names import from_gpt2, is_gpt2

__all__ = ["GPT"]


class GPT(nn.Module):
    """Tokens (N, T) to logits (N, T, V) of each next token; T is at most `context`.

    - `layout` llama: rotary positions (Su et al. 2021, arXiv:2104.09864), RMS norm, SwiGLU (Shazeer 2020,
      arXiv:2002.05202), no biases.
    - `layout` gpt2: learned positions, layer norm, GELU, biases (Radford et al. 2019); loads GPT-2's published weights.
    - `layout` nanogpt: as gpt2, without biases (Karpathy 2022).
    - `tie_embeddings`: output and embedding share their weights.

    Raises:
        ValueError: the width is not an even multiple of the heads.
    """

    def __init__(
        self,
        vocab_size: PositiveInt,
        context: PositiveInt,
        layers: PositiveInt = 4,
        heads: PositiveInt = 4,
        width: PositiveInt = 128,
        dropout: ProperFraction = 0.0,
        layout: Literal["llama", "gpt2", "nanogpt"] = "llama",
        tie_embeddings: bool = True,
    ) -> None:
        super().__init__()
        llama = layout == "llama"
        self.context = context
        self.heads = heads
        self.layout = layout
        self.embed = nn.Embedding(vocab_size, width)
        self.positions = None if llama else nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout, layout) for _ in range(layers))
        self.norm = norm(width, layout)
        self.head = None if tie_embeddings else nn.Linear(width, vocab_size, bias=False)
        self.register_buffer("rotary_2TD", rotary_table(context, width // heads) if llama else None, persistent=False)
        self.rotary_2TD: Tensor | None
        self.apply(init_transformer_weights)
        scale_residual_init(self, 2 * layers)

    def forward(self, tokens_NT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return logits. With a cache that is not empty, `tokens_NT` is (N, 1). Padding (-1) counts as token 0."""
        first = 0 if cache is None else cache.length
        last = first + tokens_NT.shape[1]
        x_NTC = self.embed(tokens_NT.clamp(min=0))
        if self.positions is not None:
            x_NTC = x_NTC + self.positions.weight[first:last]
        x_NTC = self.dropout(x_NTC)
        rotary_2TD = None if self.rotary_2TD is None else slice_rotary(self.rotary_2TD, first, last)
        for layer, block in enumerate(self.blocks):
            x_NTC = block(x_NTC, rotary_2TD, layer, cache)
        if cache is not None:
            cache.length = last
        x_NTC = self.norm(x_NTC)
        return F.linear(x_NTC, self.embed.weight) if self.head is None else self.head(x_NTC)

    def adapt_state_dict(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Map GPT-2's names to this model's; return other state dicts unchanged. ValueError for other layouts."""
        if not is_gpt2(tensors):
            return tensors
        if self.layout != "gpt2":
            raise ValueError("these weights are GPT-2's; set model.layout=gpt2")
        return from_gpt2(tensors, self.context, tied=self.head is None)

    def cache(self, count: int) -> KVCache:
        """Return an empty cache for `count` sequences."""
        return KVCache(self.embed.weight, len(self.blocks), self.heads, count, self.context)
