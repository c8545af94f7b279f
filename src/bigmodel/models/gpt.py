"""Decoder-only transformer (Vaswani et al. 2017, arXiv:1706.03762): predicts the next token.

N sequences, T tokens, C channels, D channels of a head, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import NonNegativeInt, Positive, PositiveInt, ProperFraction
from bigmodel.models.attention import Heads, KVCache, text_mask
from bigmodel.models.rotary import gather_rotary, rotary_table, slice_rotary
from bigmodel.models.transformer import (
    BlockOptions,
    TransformerBlock,
    init_transformer_weights,
    norm,
    scale_residual_init,
)
from bigmodel.models.weights.gpt2_names import from_gpt2, is_gpt2
from bigmodel.models.weights.llama_names import from_llama, is_llama

__all__ = ["GPT"]


class GPT(nn.Module):
    """Tokens (N, T) to logits (N, T, V) of each next token; T is at most `context`.

    Rows of several texts are (N, T, 2): tokens, each with its position in its text. No token sees another text.

    - `layout` llama: rotary positions (Su et al. 2021, arXiv:2104.09864), RMS norm, SwiGLU (Shazeer 2020,
      arXiv:2002.05202), no biases.
    - `layout` gpt2: learned positions, layer norm, GELU, biases (Radford et al. 2019); loads GPT-2's published weights.
    - `layout` nanogpt: as gpt2, without biases (Karpathy 2022).
    - `tie_embeddings`: output and embedding share their weights.
    - `kv_heads`, `head_width`, `qk_norm` and `window` are those of `Heads`; the first `full_layers` blocks have no
        window. `hidden`, `attention_bias` and `norm_eps` are those of `BlockOptions`.
    - `rope_theta`, `rope_scaling`: of rotary positions; see `rotary_table`.

    Published models of the families in `weights.open_weights` are this one, with their own sizes.

    Raises:
        ValueError: the width is not an even multiple of the heads, or the heads no multiple of the key heads.
    """

    reads_packed_rows = True

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
        kv_heads: PositiveInt | None = None,
        head_width: PositiveInt | None = None,
        hidden: PositiveInt | None = None,
        norm_eps: Positive = 1e-5,
        attention_bias: Literal["none", "qkv", "all"] | None = None,
        qk_norm: bool = False,
        rope_theta: Positive = 10_000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        window: PositiveInt | None = None,
        full_layers: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        llama = layout == "llama"
        self.context = context
        self.layout = layout
        self.embed = nn.Embedding(vocab_size, width)
        self.positions = None if llama else nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.kv_heads, self.head_width = Heads(kv_heads, head_width).sizes(width, heads)
        eps = norm_eps if qk_norm else None
        self.windows = [window if n >= full_layers else None for n in range(layers)]
        options = [
            BlockOptions(Heads(kv_heads, head_width, eps, one), hidden, attention_bias, norm_eps)
            for one in self.windows
        ]
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout, layout, one) for one in options)
        self.norm = norm(width, layout, norm_eps)
        self.head = None if tie_embeddings else nn.Linear(width, vocab_size, bias=False)
        rotary = rotary_table(context, self.head_width, rope_theta, rope_scaling) if llama else None
        self.register_buffer("rotary_2TD", rotary, persistent=False)
        self.rotary_2TD: Tensor | None
        self.apply(init_transformer_weights)
        scale_residual_init(self, 2 * layers)

    def forward(self, inputs: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return logits; with a cache, of tokens that follow those in it. Padding (-1) counts as token 0."""
        tokens_NT, positions_NT = inputs.unbind(2) if inputs.ndim == 3 else (inputs, None)
        first = 0 if cache is None else cache.length
        last = first + tokens_NT.shape[1]
        masks: dict[int | None, Tensor] = {}
        if positions_NT is not None:
            positions_NT = positions_NT.clamp(min=0)  # each padding token becomes a text of its own
            seen_NS = positions_NT if cache is None else cache.append_positions(positions_NT)
            masks = {window: text_mask(seen_NS, tokens_NT.shape[1], window) for window in {*self.windows}}
        x_NTC = self.embed(tokens_NT.clamp(min=0))
        if self.positions is not None:
            x_NTC = x_NTC + self.positions.weight[slice(first, last) if positions_NT is None else positions_NT]
        x_NTC = self.dropout(x_NTC)
        rotary = self._rotary(first, last, positions_NT)
        for layer, (block, window) in enumerate(zip(self.blocks, self.windows, strict=True)):
            x_NTC = block(x_NTC, rotary, layer, cache, masks.get(window))
        if cache is not None:
            cache.length = last
        x_NTC = self.norm(x_NTC)
        return F.linear(x_NTC, self.embed.weight) if self.head is None else self.head(x_NTC)

    def _rotary(self, first: int, last: int, positions_NT: Tensor | None) -> Tensor | None:
        if self.rotary_2TD is None:
            return None
        if positions_NT is None:
            return slice_rotary(self.rotary_2TD, first, last)
        return gather_rotary(self.rotary_2TD, positions_NT)

    def adapt_state_dict(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Map GPT-2's and llama's names to this model's; return other state dicts unchanged. ValueError for other
        layouts.
        """
        if is_gpt2(tensors):
            if self.layout != "gpt2":
                raise ValueError("these weights are GPT-2's; set model.layout=gpt2")
            return from_gpt2(tensors, self.context, tied=self.head is None)
        if is_llama(tensors):
            if self.layout != "llama":
                raise ValueError("these weights are of the llama family; set model.layout=llama")
            return from_llama(tensors, tied=self.head is None)
        return tensors

    def cache(self, count: int) -> KVCache:
        """Return an empty cache for `count` sequences."""
        return KVCache(self.embed.weight, len(self.blocks), self.kv_heads, count, self.context, self.head_width)
