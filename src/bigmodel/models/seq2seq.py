"""Encoder-decoder transformer (Vaswani et al. 2017, arXiv:1706.03762).

N pairs of texts, S source tokens, T target tokens, C channels, H heads of D channels, V tokens in the vocabulary. The
layers are those of `gpt` in its llama layout. Token V begins and ends every target.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.models.attention import CrossAttention, KVCache
from bigmodel.models.rotary import rotary_table, slice_rotary
from bigmodel.models.transformer import TransformerBlock, init_transformer_weights, norm, scale_residual_init

__all__ = ["Seq2Seq"]


class Memory(NamedTuple):
    """Encoded sources: keys and values for each decoder layer, and the mask of tokens."""

    kv_L2NHSD: Tensor
    mask_N11S: Tensor

    def repeat(self, count: int) -> Memory:
        """Repeat each source `count` times in succession."""
        return Memory(self.kv_L2NHSD.repeat_interleave(count, 2), self.mask_N11S.repeat_interleave(count, 0))


class Seq2Seq(nn.Module):
    """Tokens (N, context + T) to logits (N, T, V + 1) of each next target token.

    - `context` source tokens, then T target tokens, the first of which is V; -1 = padding; T is at most `context` + 1.
    - Positions are rotary, in cross-attention too, so that the decoder can follow the source's order by distance.
    - Source, target and output share the embedding (Press & Wolf 2017, arXiv:1608.05859).

    Raises:
        ValueError: the width is not an even multiple of the heads.
    """

    def __init__(
        self,
        vocab_size: PositiveInt,
        context: PositiveInt,
        encoder_layers: PositiveInt = 2,
        decoder_layers: PositiveInt = 2,
        heads: PositiveInt = 4,
        width: PositiveInt = 128,
        dropout: ProperFraction = 0.0,
    ) -> None:
        super().__init__()
        self.context = context
        self.end = vocab_size
        self.heads = heads
        self.embed = nn.Embedding(vocab_size + 2, width, padding_idx=0)  # padding, the vocabulary, begin and end
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(
            TransformerBlock(width, heads, dropout, layout="llama") for _ in range(encoder_layers)
        )
        self.encoded = norm(width, layout="llama")
        self.norm = norm(width, layout="llama")
        self.decoder = nn.ModuleList(_DecoderBlock(width, heads, dropout) for _ in range(decoder_layers))
        self.register_buffer("rotary_2TD", rotary_table(context + 1, width // heads), persistent=False)
        self.rotary_2TD: Tensor
        self.apply(init_transformer_weights)
        scale_residual_init(self, 2 * encoder_layers + 3 * decoder_layers)

    def forward(self, tokens_NX: Tensor) -> Tensor:
        return self.decode(tokens_NX[:, self.context :], self.encode(tokens_NX[:, : self.context]))

    def encode(self, source_NS: Tensor) -> Memory:
        """Encode sources (N, S) of 1 to `context` tokens for `decode`."""
        x_NSC = self.dropout(self.embed(source_NS + 1))
        rotary_2SD = slice_rotary(self.rotary_2TD, 0, source_NS.shape[1])
        mask_N11S = (source_NS >= 0)[:, None, None]
        for block in self.encoder:
            x_NSC = block(x_NSC, rotary_2SD, mask=mask_N11S)
        x_NSC = self.encoded(x_NSC)
        keys_values = [cast(_DecoderBlock, block).cross.keys_values(x_NSC, rotary_2SD) for block in self.decoder]
        return Memory(torch.stack(keys_values), mask_N11S)

    def decode(self, target_NT: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """Return logits (N, T, V + 1). With a cache that is not empty, `target_NT` is the one next token (N, 1)."""
        first = 0 if cache is None else cache.length
        last = first + target_NT.shape[1]
        x_NTC = self.dropout(self.embed(target_NT + 1))
        rotary_2TD = slice_rotary(self.rotary_2TD, first, last)
        for layer, block in enumerate(self.decoder):
            x_NTC = block(x_NTC, rotary_2TD, layer, cache, memory)
        if cache is not None:
            cache.length = last
        return F.linear(self.norm(x_NTC), self.embed.weight[1:])

    def cache(self, count: int) -> KVCache:
        """Return an empty cache for `count` targets."""
        return KVCache(self.embed.weight, len(self.decoder), self.heads, count, self.context + 1)


class _DecoderBlock(TransformerBlock):
    """Transformer block with cross-attention to the source between self-attention and MLP."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout, layout="llama")
        self.before_cross = norm(width, layout="llama")
        self.cross = CrossAttention(width, heads, dropout)

    def forward(  # type: ignore[override]
        self, x_NTC: Tensor, rotary_2TD: Tensor, layer: int, cache: KVCache | None, memory: Memory
    ) -> Tensor:
        x_NTC = x_NTC + self.dropout(self.attention(self.before_attention(x_NTC), rotary_2TD, layer, cache))
        y_NTC = self.cross(self.before_cross(x_NTC), rotary_2TD, memory.kv_L2NHSD[layer], memory.mask_N11S)
        x_NTC = x_NTC + self.dropout(y_NTC)
        return x_NTC + self.dropout(self.mlp(self.before_mlp(x_NTC)))  # type: ignore[no-any-return]
