"""A permutation language model (Yang et al. 2019, arXiv:1906.08237): tokens are predicted in a random order, each from
all before it in that order, wherever they stand.

Two streams share all weights: content, which knows its own token, and queries, which know their own place alone. Here
positions are rotary, where the paper's are relative embeddings, layers are those of `gpt` in its llama layout, and
nothing is carried from one stretch of text to the next.

N texts, T tokens, S = 1 + T places of content, M queries, X = S + M places in both streams, C channels, D channels of a
head, V tokens in the vocabulary, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt, ProperFraction
from bigmodel.models.transformer import (
    CrossAttention,
    KVCache,
    SwiGLU,
    init_transformer_weights,
    masked_mean,
    norm,
    rotary_table,
    scale_residual_init,
)

__all__ = ["XLNet", "XLNetClassifier"]


class TwoStreamEncoder(nn.Module):
    """Both streams. The first place of the content is the text's beginning, which all see; padding is seen by none."""

    def __init__(self, vocab_size: int, context: int, layers: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(vocab_size + 1, width, padding_idx=0)  # padding, the vocabulary
        self.begin_C, self.query_C = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = norm(width, layout="llama")
        self.register_buffer("turn_2PD", rotary_table(context + 2, width // heads), persistent=False)
        self.turn_2PD: Tensor
        self.apply(init_transformer_weights)
        nn.init.normal_(self.begin_C, std=0.02)
        nn.init.normal_(self.query_C, std=0.02)
        scale_residual_init(self, 2 * layers)

    def forward(self, tokens_NT: Tensor, ranks_NT: Tensor, asked_NM: Tensor) -> Tensor:
        """(N, X, C): the content of the beginning and of the tokens, then the query at each place that is `asked`.

        Content of rank r sees what has a rank up to r, its query what has a lower one. Tokens are -1 for padding.
        """
        count, length = tokens_NT.shape
        places_NS = torch.arange(1 + length, device=tokens_NT.device).expand(count, -1)
        places_NX = torch.cat([places_NS, 1 + asked_NM], dim=1)
        rank_NS = F.pad(ranks_NT, (1, 0), value=-1)
        content_NSS = rank_NS[:, None] <= rank_NS[..., None]
        queries_NMS = rank_NS[:, None] < ranks_NT.gather(1, asked_NM)[..., None]
        there_N1S = F.pad(tokens_NT >= 0, (1, 0), value=True)[:, None]
        seen_N1XS = (torch.cat([content_NSS, queries_NMS], dim=1) & there_N1S)[:, None]
        x_NXC = torch.cat([self._content(tokens_NT, begins=True), self.query_C.expand(*asked_NM.shape, -1)], dim=1)
        return self._through(x_NXC, places_NX, seen_N1XS)

    def following(self, tokens_NT: Tensor, cache: KVCache | None) -> Tensor:
        """(N, 1, C): the query at the place after the tokens, which see what is before them; with a cache that holds
        something, for one more token.
        """
        first = 0 if cache is None else cache.length
        x_NSC = self._content(tokens_NT, begins=first == 0)
        count, length = x_NSC.shape[:2]
        places_NX = torch.arange(first, first + length + 1, device=tokens_NT.device).expand(count, -1)
        seen_XS = torch.ones(length + 1, first + length, dtype=torch.bool, device=tokens_NT.device).tril(first)
        x_NXC = torch.cat([x_NSC, self.query_C.expand(count, 1, -1)], dim=1)
        x_NXC = self._through(x_NXC, places_NX, seen_XS[None, None], cache)
        if cache is not None:
            cache.length = first + length
        return x_NXC[:, -1:]

    def _content(self, tokens_NT: Tensor, begins: bool) -> Tensor:
        x_NTC = self.embed(tokens_NT.clamp(max=self.embed.num_embeddings - 2) + 1)  # what is hidden is seen by none
        return torch.cat([self.begin_C.expand(x_NTC.shape[0], 1, -1), x_NTC], dim=1) if begins else x_NTC

    def _through(self, x_NXC: Tensor, places_NX: Tensor, seen_N1XS: Tensor, cache: KVCache | None = None) -> Tensor:
        turn_2N1XD = self.turn_2PD[:, places_NX][:, :, None]
        x_NXC = self.dropout(x_NXC)
        for layer, block in enumerate(self.blocks):
            x_NXC = block(x_NXC, turn_2N1XD, seen_N1XS, layer, cache)
        return self.norm(x_NXC)  # type: ignore[no-any-return]


class XLNet(nn.Module):
    """Tokens (N, T) to logits (N, M, V) of what stands at the places (N, M) that are `asked`; T is at most `context`.

    A place is predicted from the tokens with lower `ranks` (N, T) than its own. By default those that are hidden, token
    V, are predicted from all others, and all places are asked: of one that is not hidden nothing is said. The output's
    weights are the embedding's.

    Raises:
        ValueError: the heads do not divide the width into even parts.
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

    def forward(self, tokens_NT: Tensor, ranks_NT: Tensor | None = None, asked_NM: Tensor | None = None) -> Tensor:
        if ranks_NT is None:
            ranks_NT = (tokens_NT == len(self.bias_V)).long()
        if asked_NM is None:
            asked_NM = torch.arange(tokens_NT.shape[1], device=tokens_NT.device).expand(tokens_NT.shape[0], -1)
        return self._logits(self.encoder(tokens_NT, ranks_NT, asked_NM)[:, -asked_NM.shape[1] :])

    def left_to_right(self) -> CausalXLNet:
        """The same as a model of the next token, with a cache. Here each token sees those before it alone; in training
        those that are shown see each other.
        """
        return CausalXLNet(self)

    def _logits(self, x_NMC: Tensor) -> Tensor:
        return F.linear(x_NMC, self.encoder.embed.weight[1:], self.bias_V)


class CausalXLNet:
    """A `Decoder` (`models.decoding.generation`): tokens (N, T) to logits (N, 1, V) of the one after the last."""

    def __init__(self, model: XLNet) -> None:
        self._model, self.context = model, model.context

    def __call__(self, tokens_NT: Tensor, cache: KVCache | None = None) -> Tensor:
        return self._model._logits(self._model.encoder.following(tokens_NT, cache))

    def cache(self, count: int) -> KVCache:
        encoder = self._model.encoder
        return KVCache(encoder.embed.weight, len(encoder.blocks), encoder.heads, count, self.context + 1)


class XLNetClassifier(nn.Module):
    """Tokens (N, T) to logits (N, K), from the mean of the tokens' content, where each sees every other.

    To start from an `XLNet` of the same tokens and sizes, `init.from` names its run.

    Raises:
        ValueError: the heads do not divide the width into even parts.
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
        self.encoder.query_C.requires_grad_(False)  # nothing is asked
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(width, num_classes)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        none_N0 = tokens_NT.new_zeros(tokens_NT.shape[0], 0)
        x_NTC = self.encoder(tokens_NT, torch.zeros_like(tokens_NT), none_N0)[:, 1:]
        return self.classify(self.dropout(masked_mean(x_NTC, tokens_NT)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """All places look at the content of those that they have seen."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = norm(width, layout="llama"), norm(width, layout="llama")
        self.attention, self.mlp = CrossAttention(width, heads, dropout), SwiGLU(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_NXC: Tensor, turn_2N1XD: Tensor, seen_N1XS: Tensor, layer: int, cache: KVCache | None
    ) -> Tensor:
        y_NXC = self.before_attention(x_NXC)
        new = seen_N1XS.shape[3] - (0 if cache is None else cache.length)
        kept_2NHSD = self.attention.kept(y_NXC[:, :new], turn_2N1XD[:, :, :, :new])
        if cache is not None:
            kept_2NHSD = torch.stack(cache.append(layer, *kept_2NHSD))
        x_NXC = x_NXC + self.dropout(self.attention(y_NXC, turn_2N1XD, kept_2NHSD, seen_N1XS))
        return x_NXC + self.dropout(self.mlp(self.before_mlp(x_NXC)))  # type: ignore[no-any-return]
