"""An encoder-decoder transformer (Vaswani et al. 2017, arXiv:1706.03762): one text becomes another.

N pairs of texts, S source tokens, T target tokens, C channels, H heads of D channels, V tokens in the vocabulary. The
layers are those of `gpt` in its llama layout. Token V begins and ends every target.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.models.transformer import (
    CrossAttention,
    KVCache,
    TransformerBlock,
    init_transformer_weights,
    norm,
    rotary_table,
    scale_residual_init,
    turns_between,
)

__all__ = ["Seq2Seq"]


class Memory(NamedTuple):
    """What the decoder sees of sources: keys and values of each of its layers, and where there is a token."""

    kept_L2NHSD: Tensor
    seen_N11S: Tensor

    def repeated(self, count: int) -> Memory:
        """Each source so many times, one after another."""
        return Memory(self.kept_L2NHSD.repeat_interleave(count, 2), self.seen_N11S.repeat_interleave(count, 0))


class Seq2Seq(nn.Module):
    """Tokens (N, context + T) to logits (N, T, V + 1) of each next target token: `context` places of the source, then T
    of the target so far, which begins with token V. -1 fills both up; T is at most `context` + 1.

    Positions are rotary, and so are those of the source as the decoder sees them: it can follow the source's order by
    distance. Embedding and output weights are the same for both texts (Press & Wolf 2017, arXiv:1608.05859).

    Raises:
        ValueError: the heads do not divide the width into even parts.
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
        self.context, self.end, self.heads = context, vocab_size, heads
        self.embed = nn.Embedding(vocab_size + 2, width, padding_idx=0)  # padding, the vocabulary, begin and end
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(
            TransformerBlock(width, heads, dropout, layout="llama") for _ in range(encoder_layers)
        )
        self.encoded, self.norm = norm(width, layout="llama"), norm(width, layout="llama")
        self.decoder = nn.ModuleList(_DecoderBlock(width, heads, dropout) for _ in range(decoder_layers))
        self.register_buffer("turn_2TD", rotary_table(context + 1, width // heads), persistent=False)
        self.turn_2TD: Tensor
        self.apply(init_transformer_weights)
        scale_residual_init(self, 2 * encoder_layers + 3 * decoder_layers)

    def forward(self, tokens_NX: Tensor) -> Tensor:
        return self.decode(tokens_NX[:, self.context :], self.encode(tokens_NX[:, : self.context]))

    def encode(self, source_NS: Tensor) -> Memory:
        """What `decode` needs of sources of up to `context` tokens, of which each has one or more."""
        x_NSC, turn_2SD = self.dropout(self.embed(source_NS + 1)), turns_between(self.turn_2TD, 0, source_NS.shape[1])
        seen_N11S = (source_NS >= 0)[:, None, None]
        for block in self.encoder:
            x_NSC = block(x_NSC, turn_2SD, seen_N11T=seen_N11S)
        x_NSC = self.encoded(x_NSC)
        kept = [cast(_DecoderBlock, block).cross.kept(x_NSC, turn_2SD) for block in self.decoder]
        return Memory(torch.stack(kept), seen_N11S)

    def decode(self, target_NT: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """Logits (N, T, V + 1); with a cache that holds something, for one more token of each target."""
        first = 0 if cache is None else cache.length
        last = first + target_NT.shape[1]
        x_NTC, turn_2TD = self.dropout(self.embed(target_NT + 1)), turns_between(self.turn_2TD, first, last)
        for layer, block in enumerate(self.decoder):
            x_NTC = block(x_NTC, turn_2TD, layer, cache, memory)
        if cache is not None:
            cache.length = last
        return F.linear(self.norm(x_NTC), self.embed.weight[1:])

    def cache(self, count: int) -> KVCache:
        """An empty cache for so many targets."""
        return KVCache(self.embed.weight, len(self.decoder), self.heads, count, self.context + 1)


class _DecoderBlock(TransformerBlock):
    """A look at the source between the look back and the MLP."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout, layout="llama")
        self.before_cross, self.cross = norm(width, layout="llama"), CrossAttention(width, heads, dropout)

    def forward(  # type: ignore[override]
        self, x_NTC: Tensor, turn_2TD: Tensor, layer: int, cache: KVCache | None, memory: Memory
    ) -> Tensor:
        x_NTC = x_NTC + self.dropout(self.attention(self.before_attention(x_NTC), turn_2TD, layer, cache))
        kept_2NHSD, seen_N11S = memory.kept_L2NHSD[layer], memory.seen_N11S
        x_NTC = x_NTC + self.dropout(self.cross(self.before_cross(x_NTC), turn_2TD, kept_2NHSD, seen_N11S))
        return x_NTC + self.dropout(self.mlp(self.before_mlp(x_NTC)))  # type: ignore[no-any-return]
