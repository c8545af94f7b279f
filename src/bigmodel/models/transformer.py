"""What several transformers are made of.

N sequences, T tokens, C channels, H heads of D channels, F channels within an MLP, L layers.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Attention",
    "CrossAttention",
    "EncoderBlock",
    "KVCache",
    "Layout",
    "SwiGLU",
    "TransformerBlock",
    "apply_rotary",
    "init_transformer_weights",
    "masked_mean",
    "norm",
    "rotary_table",
    "scale_residual_init",
    "turns_between",
]

Layout = Literal["llama", "gpt2", "nanogpt"]
_BASE = 10_000.0  # of the rotary wavelengths


def _check_head_width(width: int, heads: int, even: bool = True) -> None:
    if width % (heads * (1 + even)):
        parts = ", an even number each" if even else ""
        raise ValueError(f"width: {width} cannot be divided among {heads} heads{parts}")


class EncoderBlock(nn.Module):
    """Every token sees every other that is `seen`, bool (N, 1, 1, T): layer norms first (Xiong et al. 2020,
    arXiv:2002.04745), GELU, biases.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        _check_head_width(width, heads, even=False)
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout, self.heads = nn.Dropout(dropout), heads

    def forward(self, x_NTC: Tensor, seen_N11T: Tensor | None = None) -> Tensor:
        qkv_NT3HD = self.qkv(self.before_attention(x_NTC)).unflatten(2, (3, self.heads, -1))
        q_NHTD, k_NHTD, v_NHTD = qkv_NT3HD.permute(2, 0, 3, 1, 4)
        y_NHTD = F.scaled_dot_product_attention(q_NHTD, k_NHTD, v_NHTD, attn_mask=seen_N11T)
        x_NTC = x_NTC + self.dropout(self.out(y_NHTD.transpose(1, 2).flatten(2)))
        return x_NTC + self.dropout(self.mlp(self.before_mlp(x_NTC)))  # type: ignore[no-any-return]


class KVCache:
    """Keys and values of the `length` tokens of `count` sequences that a model has read, so that it need not read them
    again: of each layer, for up to `context` tokens, of the type and on the device of the embedding `like`.
    """

    def __init__(self, like: Tensor, layers: int, heads: int, count: int, context: int) -> None:
        self.kept_L2NHTD = like.new_zeros(layers, 2, count, heads, context, like.shape[1] // heads)
        self.length = 0

    def append(self, layer: int, k_NHTD: Tensor, v_NHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens so far, these included."""
        kept_2NHTD, end = self.kept_L2NHTD[layer], self.length + k_NHTD.shape[2]
        kept_2NHTD[0, :, :, self.length : end], kept_2NHTD[1, :, :, self.length : end] = k_NHTD, v_NHTD
        return kept_2NHTD[0, :, :, :end], kept_2NHTD[1, :, :, :end]

    def reorder(self, rows_N: Tensor) -> None:
        """Sequence n goes on from what was sequence `rows_N[n]`."""
        self.kept_L2NHTD = self.kept_L2NHTD[:, :, rows_N]


class TransformerBlock(nn.Module):
    """Attention, then an MLP, each after a norm and added to what came in.

    llama: RMS norm, SwiGLU (Shazeer 2020, arXiv:2002.05202), no biases. gpt2: layer norm, GELU as its formula with tanh
    has it, biases. nanogpt: layer norm, GELU, no biases.
    """

    def __init__(self, width: int, heads: int, dropout: float, layout: Layout) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = norm(width, layout), norm(width, layout)
        self.attention = Attention(width, heads, dropout, bias=layout == "gpt2")
        self.mlp = SwiGLU(width) if layout == "llama" else GELUMLP(width, layout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_NTC: Tensor,
        turn_2TD: Tensor | None,
        layer: int = 0,
        cache: KVCache | None = None,
        seen_N11T: Tensor | None = None,
    ) -> Tensor:
        """As `Attention`."""
        x_NTC = x_NTC + self.dropout(self.attention(self.before_attention(x_NTC), turn_2TD, layer, cache, seen_N11T))
        return x_NTC + self.dropout(self.mlp(self.before_mlp(x_NTC)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Tokens look at each other, at relative places if they are turned (Su et al. 2021, arXiv:2104.09864).

    Raises:
        ValueError: the heads do not divide the width into even parts.
    """

    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        _check_head_width(width, heads)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.heads, self.dropout = heads, dropout

    def forward(
        self,
        x_NTC: Tensor,
        turn_2TD: Tensor | None,
        layer: int = 0,
        cache: KVCache | None = None,
        seen_N11T: Tensor | None = None,
    ) -> Tensor:
        """Each token sees itself, those before it, and what the cache holds; or, if given, all that are `seen`."""
        n, t, c = x_NTC.shape
        q_NHTD, k_NHTD, v_NHTD = self.qkv(x_NTC).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if turn_2TD is not None:
            q_NHTD, k_NHTD = apply_rotary(q_NHTD, turn_2TD), apply_rotary(k_NHTD, turn_2TD)
        if cache is not None:
            k_NHTD, v_NHTD = cache.append(layer, k_NHTD, v_NHTD)
        dropout = self.dropout if self.training else 0.0
        # with a cache, one token alone sees all that the cache holds; without one it sees itself, causal or not
        causal = seen_N11T is None and (cache is None or t > 1)
        y_NHTD = F.scaled_dot_product_attention(q_NHTD, k_NHTD, v_NHTD, seen_N11T, dropout, is_causal=causal)
        return self.out(y_NHTD.transpose(1, 2).reshape(n, t, c))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Tokens look at others than themselves, of which `kept` makes keys and values. Raises as `Attention`."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        _check_head_width(width, heads)
        self.q, self.kv = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.heads, self.dropout = heads, dropout

    def kept(self, x_NSC: Tensor, turn_2SD: Tensor) -> Tensor:
        """Keys and values (2, N, H, S, D), turned by their positions."""
        k_NHSD, v_NHSD = self.kv(x_NSC).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return torch.stack([apply_rotary(k_NHSD, turn_2SD), v_NHSD])

    def forward(self, x_NTC: Tensor, turn_2TD: Tensor, kept_2NHSD: Tensor, seen_N1TS: Tensor) -> Tensor:
        """What each of the tokens finds among those that it has `seen`, one or more."""
        q_NHTD = apply_rotary(self.q(x_NTC).unflatten(2, (self.heads, -1)).transpose(1, 2), turn_2TD)
        dropout = self.dropout if self.training else 0.0
        k_NHSD, v_NHSD = kept_2NHSD
        y_NHTD = F.scaled_dot_product_attention(q_NHTD, k_NHSD, v_NHSD, seen_N1TS, dropout)
        return self.out(y_NHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    """As many weights as an MLP four times as wide has, in three matrices."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * round(width / 3)
        self.gate_up, self.down = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x_NTC: Tensor) -> Tensor:
        gate_NTF, up_NTF = self.gate_up(x_NTC).chunk(2, dim=-1)
        return self.down(F.silu(gate_NTF) * up_NTF)  # type: ignore[no-any-return]


class GELUMLP(nn.Module):
    def __init__(self, width: int, layout: Layout) -> None:
        super().__init__()
        bias = layout == "gpt2"
        self.up, self.down = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)
        self.approximate = "tanh" if layout == "gpt2" else "none"

    def forward(self, x_NTC: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_NTC), approximate=self.approximate))  # type: ignore[no-any-return]


def norm(width: int, layout: Layout) -> nn.Module:
    """RMS norm, or layer norm."""
    return nn.RMSNorm(width, eps=1e-5) if layout == "llama" else nn.LayerNorm(width, bias=layout == "gpt2")


def masked_mean(x_NTC: Tensor, tokens_NT: Tensor) -> Tensor:
    """(N, C): the mean over the places where there is a token."""
    there_NT1 = (tokens_NT >= 0)[..., None]
    return (x_NTC * there_NT1).sum(1) / there_NT1.sum(1).clamp(min=1)


def rotary_table(context: int, size: int) -> Tensor:
    """Cosine and sine (2, T, D) of the angle by which each position turns each pair of channels (d, d + D/2)."""
    rates_D = _BASE ** (-torch.arange(0, size, 2) / size).repeat(2)
    angles_TD = torch.arange(context)[:, None] * rates_D
    return torch.stack([angles_TD.cos(), angles_TD.sin()])


def turns_between(turn_2TD: Tensor, first: int, last: int) -> Tensor:
    """Turns of the positions `first` to `last` - 1.

    An exporter would note whether a slice is the whole buffer, and so treat the longest input as another case; what is
    gathered is laid out alike for every length.
    """
    if torch.compiler.is_exporting():
        return turn_2TD.index_select(1, torch.arange(first, last, device=turn_2TD.device))
    return turn_2TD[:, first:last]


def apply_rotary(x_NHTD: Tensor, turn_2TD: Tensor) -> Tensor:
    """Queries or keys, turned by their positions: their products depend on the distance alone."""
    first, second = x_NHTD.chunk(2, dim=-1)
    return x_NHTD * turn_2TD[0] + torch.cat([-second, first], dim=-1) * turn_2TD[1]


def init_transformer_weights(module: nn.Module) -> None:
    """First weights as GPT-2 and BERT have them, for `apply`; padding's embedding stays nothing."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


def scale_residual_init(model: nn.Module, additions: int) -> None:
    """Make smaller what `additions` times is added to the stream between the layers (Radford et al. 2019)."""
    for name, parameter in model.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(additions))
