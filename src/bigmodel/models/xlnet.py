"""XLNet (Yang et al. 2019, arXiv:1906.08237): a permutation language model.

Tokens are predicted in a random order, each from all that precede it in that order, wherever they stand in the text.
Two streams share all weights: content, which knows its own token, and queries, which know their position alone. Unlike
the paper's, positions are rotary, layers are those of `gpt` in its llama layout, and there is no recurrence between
segments.

N texts, T tokens, S = 1 + T content positions, M queries, X = S + M positions in both streams, C channels, D channels
of a head, V tokens in the vocabulary, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.models.attention import CrossAttention, KVCache
from bigmodel.models.rotary import rotary_table
from bigmodel.models.transformer import SwiGLU, init_transformer_weights, masked_mean, norm, scale_residual_init

__all__ = ["XLNet", "XLNetClassifier"]


class TwoStreamEncoder(nn.Module):
    """Both streams. Content position 0 is the beginning of the text, visible to all; padding is visible to none."""

    def __init__(self, vocab_size: int, context: int, layers: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(vocab_size + 1, width, padding_idx=0)  # padding, the vocabulary
        self.begin_C = nn.Parameter(torch.empty(width))
        self.query_C = nn.Parameter(torch.empty(width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = norm(width, layout="llama")
        self.register_buffer("rotary_2PD", rotary_table(context + 2, width // heads), persistent=False)
        self.rotary_2PD: Tensor
        self.apply(init_transformer_weights)
        nn.init.normal_(self.begin_C, std=0.02)
        nn.init.normal_(self.query_C, std=0.02)
        scale_residual_init(self, 2 * layers)

    def forward(self, tokens_NT: Tensor, perm_rank_NT: Tensor, target_positions_NM: Tensor) -> Tensor:
        """Return (N, X, C): content of the beginning and of the tokens, then the query at each target position.

        Content of rank r attends to ranks up to r, a query to lower ranks only. Tokens: -1 = padding.
        """
        count, length = tokens_NT.shape
        positions_NS = torch.arange(1 + length, device=tokens_NT.device).expand(count, -1)
        positions_NX = torch.cat([positions_NS, 1 + target_positions_NM], dim=1)
        perm_rank_NS = F.pad(perm_rank_NT, (1, 0), value=-1)
        content_NSS = perm_rank_NS[:, None] <= perm_rank_NS[..., None]
        queries_NMS = perm_rank_NS[:, None] < perm_rank_NT.gather(1, target_positions_NM)[..., None]
        valid_N1S = F.pad(tokens_NT >= 0, (1, 0), value=True)[:, None]
        mask_N1XS = (torch.cat([content_NSS, queries_NMS], dim=1) & valid_N1S)[:, None]
        x_NXC = torch.cat(
            [self._content(tokens_NT, begins=True), self.query_C.expand(*target_positions_NM.shape, -1)], dim=1
        )
        return self._run_blocks(x_NXC, positions_NX, mask_N1XS)

    def next_query(self, tokens_NT: Tensor, cache: KVCache | None) -> Tensor:
        """Return the query at the position after the tokens, (N, 1, C); tokens attend to earlier ones.

        With a cache that is not empty, `tokens_NT` is the one next token (N, 1).
        """
        first = 0 if cache is None else cache.length
        x_NSC = self._content(tokens_NT, begins=first == 0)
        count, length = x_NSC.shape[:2]
        positions_NX = torch.arange(first, first + length + 1, device=tokens_NT.device).expand(count, -1)
        mask_XS = torch.ones(length + 1, first + length, dtype=torch.bool, device=tokens_NT.device).tril(first)
        x_NXC = torch.cat([x_NSC, self.query_C.expand(count, 1, -1)], dim=1)
        x_NXC = self._run_blocks(x_NXC, positions_NX, mask_XS[None, None], cache)
        if cache is not None:
            cache.length = first + length
        return x_NXC[:, -1:]

    def _content(self, tokens_NT: Tensor, begins: bool) -> Tensor:
        x_NTC = self.embed(tokens_NT.clamp(max=self.embed.num_embeddings - 2) + 1)  # masked tokens are visible to none
        return torch.cat([self.begin_C.expand(x_NTC.shape[0], 1, -1), x_NTC], dim=1) if begins else x_NTC

    def _run_blocks(
        self, x_NXC: Tensor, positions_NX: Tensor, mask_N1XS: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        rotary_2N1XD = self.rotary_2PD[:, positions_NX][:, :, None]
        x_NXC = self.dropout(x_NXC)
        for layer, block in enumerate(self.blocks):
            x_NXC = block(x_NXC, rotary_2N1XD, mask_N1XS, layer, cache)
        return self.norm(x_NXC)  # type: ignore[no-any-return]


class XLNet(nn.Module):
    """Tokens (N, T) to logits (N, M, V) at the target positions (N, M); T is at most `context`.

    Each target position is predicted from tokens of lower rank. By default, masked tokens (id V) are predicted from all
    unmasked ones, and logits at other positions are meaningless. Output and embedding share their weights.

    Raises:
        ValueError: the width is not an even multiple of the heads.
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
        self.context = context
        self.encoder = TwoStreamEncoder(vocab_size, context, layers, heads, width, dropout)
        self.bias_V = nn.Parameter(torch.zeros(vocab_size))

    def forward(
        self, tokens_NT: Tensor, perm_rank_NT: Tensor | None = None, target_positions_NM: Tensor | None = None
    ) -> Tensor:
        if perm_rank_NT is None:
            perm_rank_NT = (tokens_NT == len(self.bias_V)).long()
        if target_positions_NM is None:
            target_positions_NM = torch.arange(tokens_NT.shape[1], device=tokens_NT.device).expand(
                tokens_NT.shape[0], -1
            )
        return self._logits(
            self.encoder(tokens_NT, perm_rank_NT, target_positions_NM)[:, -target_positions_NM.shape[1] :]
        )

    def left_to_right(self) -> CausalXLNet:
        """Return a causal model with a cache that shares these weights.

        Each token attends to earlier ones only; in training, all visible tokens attend to each other.
        """
        return CausalXLNet(self)

    def _logits(self, x_NMC: Tensor) -> Tensor:
        return F.linear(x_NMC, self.encoder.embed.weight[1:], self.bias_V)


class CausalXLNet:
    """`Decoder` of `models.decoding.generation`: tokens (N, T) to logits (N, 1, V) of the next token."""

    def __init__(self, model: XLNet) -> None:
        self._model = model
        self.context = model.context

    def __call__(self, tokens_NT: Tensor, cache: KVCache | None = None) -> Tensor:
        return self._model._logits(self._model.encoder.next_query(tokens_NT, cache))

    def cache(self, count: int) -> KVCache:
        encoder = self._model.encoder
        return KVCache(encoder.embed.weight, len(encoder.blocks), encoder.heads, count, self.context + 1)


class XLNetClassifier(nn.Module):
    """Tokens (N, T) to logits (N, K), from the mean of the content stream with full attention.

    `init.from` can name the run of an `XLNet` of the same tokens and sizes.

    Raises:
        ValueError: the width is not an even multiple of the heads.
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
    ) -> None:
        super().__init__()
        self.encoder = TwoStreamEncoder(vocab_size, context, layers, heads, width, dropout)
        self.encoder.query_C.requires_grad_(False)  # without targets it is not used
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(width, num_classes)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        no_targets_N0 = tokens_NT.new_zeros(tokens_NT.shape[0], 0)
        x_NTC = self.encoder(tokens_NT, torch.zeros_like(tokens_NT), no_targets_N0)[:, 1:]
        return self.classify(self.dropout(masked_mean(x_NTC, tokens_NT)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Pre-norm block in which all positions attend to the content stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention = norm(width, layout="llama")
        self.before_mlp = norm(width, layout="llama")
        self.attention = CrossAttention(width, heads, dropout)
        self.mlp = SwiGLU(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_NXC: Tensor, rotary_2N1XD: Tensor, mask_N1XS: Tensor, layer: int, cache: KVCache | None
    ) -> Tensor:
        y_NXC = self.before_attention(x_NXC)
        num_new = mask_N1XS.shape[3] - (0 if cache is None else cache.length)
        kv_2NHSD = self.attention.keys_values(y_NXC[:, :num_new], rotary_2N1XD[:, :, :, :num_new])
        if cache is not None:
            kv_2NHSD = torch.stack(cache.append(layer, *kv_2NHSD))
        x_NXC = x_NXC + self.dropout(self.attention(y_NXC, rotary_2N1XD, kv_2NHSD, mask_N1XS))
        return x_NXC + self.dropout(self.mlp(self.before_mlp(x_NXC)))  # type: ignore[no-any-return]
