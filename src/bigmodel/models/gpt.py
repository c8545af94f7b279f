"""A decoder-only transformer (Vaswani et al. 2017, arXiv:1706.03762): the next token from all before it.

N sequences, T tokens, C channels, H heads of D channels, V tokens in the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.gpt2_names import is_gpt2, own_names
from bigmodel.ranges import BelowOne, PositiveInt

__all__ = ["GPT"]

_BASE = 10_000.0  # of the rotary wavelengths


class Cache:
    """Keys and values of the `length` tokens that a model has read, so that it need not read them again."""

    def __init__(self, model: GPT, count: int) -> None:
        weight, heads = model.embed.weight, model.heads
        shape = (len(model.blocks), 2, count, heads, model.context, weight.shape[1] // heads)
        self.kept_L2NHTD, self.length = weight.new_zeros(shape), 0

    def extended(self, layer: int, k_NHTD: Tensor, v_NHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens so far, these included."""
        kept_2NHTD, end = self.kept_L2NHTD[layer], self.length + k_NHTD.shape[2]
        kept_2NHTD[0, :, :, self.length : end], kept_2NHTD[1, :, :, self.length : end] = k_NHTD, v_NHTD
        return kept_2NHTD[0, :, :, :end], kept_2NHTD[1, :, :, :end]


class GPT(nn.Module):
    """Tokens (N, T) to logits (N, T, V) of each next token; T is at most `context`.

    `layout` llama: rotary positions (Su et al. 2021, arXiv:2104.09864), RMS norm, SwiGLU (Shazeer 2020,
    arXiv:2002.05202), no biases. gpt2: learned positions, layer norm, GELU, biases (Radford et al. 2019). The output
    weights are those of the embedding, if `tied`. With gpt2, GPT-2's own weights can be loaded by their own names.

    Raises:
        ValueError: the heads do not divide the width into even parts.
    """

    def __init__(
        self,
        vocab_size: PositiveInt,
        context: PositiveInt,
        layers: PositiveInt = 4,
        heads: PositiveInt = 4,
        width: PositiveInt = 128,
        dropout: BelowOne = 0.0,
        layout: Literal["llama", "gpt2"] = "llama",
        tied: bool = True,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width: {width} cannot be divided among {heads} heads, an even number each")
        llama = layout == "llama"
        self.context, self.heads = context, heads
        self.embed = nn.Embedding(vocab_size, width)
        self.positions = None if llama else nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout, llama) for _ in range(layers))
        self.norm = _norm(width, llama)
        self.head = None if tied else nn.Linear(width, vocab_size, bias=False)
        self.register_buffer("turn_2TD", _turn(context, width // heads) if llama else None, persistent=False)
        self.turn_2TD: Tensor | None
        self.apply(_initialise)
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):  # what is added to the residual stream, twice a layer
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers))

    def forward(self, tokens_NT: Tensor, cache: Cache | None = None) -> Tensor:
        """With a cache that holds something, one more token of each sequence. Padding, below 0, is read as token 0."""
        first = 0 if cache is None else cache.length
        last = first + tokens_NT.shape[1]
        x_NTC = self.embed(tokens_NT.clamp(min=0))
        if self.positions is not None:
            x_NTC = x_NTC + self.positions.weight[first:last]
        x_NTC = self.dropout(x_NTC)
        turn_2TD = None if self.turn_2TD is None else self.turn_2TD[:, first:last]
        for layer, block in enumerate(self.blocks):
            x_NTC = block(x_NTC, turn_2TD, layer, cache)
        if cache is not None:
            cache.length = last
        x_NTC = self.norm(x_NTC)
        return F.linear(x_NTC, self.embed.weight) if self.head is None else self.head(x_NTC)

    def translated(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """GPT-2's weights by this model's names; others as they are. ValueError if they do not go with the layout."""
        if not is_gpt2(tensors):
            return tensors
        if self.positions is None:
            raise ValueError("these weights are GPT-2's; set model.layout=gpt2")
        return own_names(tensors, self.context, tied=self.head is None)

    def cache(self, count: int) -> Cache:
        """An empty cache for so many sequences."""
        return Cache(self, count)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, llama: bool) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = _norm(width, llama), _norm(width, llama)
        self.attention = _Attention(width, heads, dropout, bias=not llama)
        self.mlp = _SwiGLU(width) if llama else _GELU(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_NTC: Tensor, turn_2TD: Tensor | None, layer: int, cache: Cache | None) -> Tensor:
        x_NTC = x_NTC + self.dropout(self.attention(self.before_attention(x_NTC), turn_2TD, layer, cache))
        return x_NTC + self.dropout(self.mlp(self.before_mlp(x_NTC)))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.heads, self.dropout = heads, dropout

    def forward(self, x_NTC: Tensor, turn_2TD: Tensor | None, layer: int, cache: Cache | None) -> Tensor:
        n, t, c = x_NTC.shape
        q_NHTD, k_NHTD, v_NHTD = self.qkv(x_NTC).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if turn_2TD is not None:
            q_NHTD, k_NHTD = _turned(q_NHTD, turn_2TD), _turned(k_NHTD, turn_2TD)
        if cache is not None:
            k_NHTD, v_NHTD = cache.extended(layer, k_NHTD, v_NHTD)
        dropout = self.dropout if self.training else 0.0
        causal = t > 1  # one token alone sees all that the cache holds
        y_NHTD = F.scaled_dot_product_attention(q_NHTD, k_NHTD, v_NHTD, dropout_p=dropout, is_causal=causal)
        return self.out(y_NHTD.transpose(1, 2).reshape(n, t, c))  # type: ignore[no-any-return]


class _SwiGLU(nn.Module):
    """As many weights as an MLP four times as wide has, in three matrices."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * round(width / 3)
        self.gate_up, self.down = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x_NTC: Tensor) -> Tensor:
        gate_NTF, up_NTF = self.gate_up(x_NTC).chunk(2, dim=-1)
        return self.down(F.silu(gate_NTF) * up_NTF)  # type: ignore[no-any-return]


class _GELU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_NTC: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_NTC), approximate="tanh"))  # type: ignore[no-any-return]


def _norm(width: int, llama: bool) -> nn.Module:
    return nn.RMSNorm(width, eps=1e-5) if llama else nn.LayerNorm(width)


def _turn(context: int, size: int) -> Tensor:
    """Cosine and sine (2, T, D) of the angle by which each position turns each pair of channels (d, d + D/2)."""
    rates_D = _BASE ** (-torch.arange(0, size, 2) / size).repeat(2)
    angles_TD = torch.arange(context)[:, None] * rates_D
    return torch.stack([angles_TD.cos(), angles_TD.sin()])


def _turned(x_NHTD: Tensor, turn_2TD: Tensor) -> Tensor:
    first, second = x_NHTD.chunk(2, dim=-1)
    return x_NHTD * turn_2TD[0] + torch.cat([-second, first], dim=-1) * turn_2TD[1]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
