"""BERT's encoder as it was published (Devlin et al. 2019, arXiv:1810.04805): norms come last in each layer.

N texts, T tokens, C channels, H heads of D channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.attention import check_head_width
from bigmodel.models.transformer import init_transformer_weights

__all__ = ["PublishedBertEncoder"]


class PublishedBertEncoder(nn.Module):
    """Tokens (N, T), -1 = padding, to (N, T, C); T is at most `context`. Special tokens are among the tokens.

    Positions and the type of a single text are one table: the sum of both in published weights.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        layers: int,
        heads: int,
        width: int,
        dropout: float,
        hidden: int | None,
        norm_eps: float,
    ) -> None:
        super().__init__()
        check_head_width(width, heads, even=False)
        self.embed = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(context, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            _PostNormBlock(width, heads, dropout, hidden or 4 * width, norm_eps) for _ in range(layers)
        )
        self.apply(init_transformer_weights)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        x_NTC = self.embed(tokens_NT.clamp(min=0)) + self.positions.weight[: tokens_NT.shape[1]]
        x_NTC = self.dropout(self.norm(x_NTC))
        mask_N11T = (tokens_NT >= 0)[:, None, None]
        for block in self.blocks:
            x_NTC = block(x_NTC, mask_N11T)
        return x_NTC  # type: ignore[no-any-return]


class _PostNormBlock(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, hidden: int, eps: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.after_attention = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.after_mlp = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.heads = heads

    def forward(self, x_NTC: Tensor, mask_N11T: Tensor) -> Tensor:
        q_NHTD, k_NHTD, v_NHTD = self.qkv(x_NTC).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout.p if self.training else 0.0
        y_NHTD = F.scaled_dot_product_attention(q_NHTD, k_NHTD, v_NHTD, mask_N11T, dropout)
        x_NTC = self.after_attention(x_NTC + self.dropout(self.out(y_NHTD.transpose(1, 2).flatten(2))))
        return self.after_mlp(x_NTC + self.dropout(self.mlp(x_NTC)))  # type: ignore[no-any-return]
