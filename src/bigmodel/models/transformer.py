"""Layers that several transformers share.

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
    "slice_rotary",
]

Layout = Literal["llama", "gpt2", "nanogpt"]
_ROTARY_BASE = 10_000.0


def _check_head_width(width: int, heads: int, even: bool = True) -> None:
    if width % (heads * (1 + even)):
        even_part = ", an even number each" if even else ""
        raise ValueError(f"width: {width} cannot be divided among {heads} heads{even_part}")


class EncoderBlock(nn.Module):
    """Bidirectional pre-norm block (Xiong et al. 2020, arXiv:2002.04745): layer norm, GELU, biases.

    `mask_N11T` (bool) is true for the tokens that may be attended to.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        _check_head_width(width, heads, even=False)
        self.before_attention = nn.LayerNorm(width)
        self.before_mlp = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)
        self.heads = heads

    def forward(self, x_NTC: Tensor, mask_N11T: Tensor | None = None) -> Tensor:
        qkv_NT3HD = self.qkv(self.before_attention(x_NTC)).unflatten(2, (3, self.heads, -1))
        q_NHTD, k_NHTD, v_NHTD = qkv_NT3HD.permute(2, 0, 3, 1, 4)
        y_NHTD = F.scaled_dot_product_attention(q_NHTD, k_NHTD, v_NHTD, attn_mask=mask_N11T)
        x_NTC = x_NTC + self.dropout(self.out(y_NHTD.transpose(1, 2).flatten(2)))
        return x_NTC + self.dropout(self.mlp(self.before_mlp(x_NTC)))  # type: ignore[no-any-return]


class KVCache:
    """Key/value cache for incremental decoding: (L, 2, N, H, T_max, D).

    The first `length` positions are filled. Dtype, device and width are those of the embedding `like`.
    """

    def __init__(self, like: Tensor, layers: int, heads: int, count: int, context: int) -> None:
        self.kv_L2NHTD = like.new_zeros(layers, 2, count, heads, context, like.shape[1] // heads)
        self.length = 0

    def append(self, layer: int, k_NHTD: Tensor, v_NHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values of new tokens; return those of all tokens so far."""
        kv_2NHTD = self.kv_L2NHTD[layer]
        end = self.length + k_NHTD.shape[2]
        kv_2NHTD[0, :, :, self.length : end] = k_NHTD
        kv_2NHTD[1, :, :, self.length : end] = v_NHTD
        return kv_2NHTD[0, :, :, :end], kv_2NHTD[1, :, :, :end]

    def reorder(self, rows_N: Tensor) -> None:
        """Replace sequence n by sequence `rows_N[n]`, in place."""
        self.kv_L2NHTD = self.kv_L2NHTD[:, :, rows_N]


class TransformerBlock(nn.Module):
    """Pre-norm block: attention, then an MLP, each in a residual branch.

    - llama: RMS norm, SwiGLU (Shazeer 2020, arXiv:2002.05202), no biases.
    - gpt2: layer norm, GELU by its tanh approximation, biases.
    - nanogpt: layer norm, GELU, no biases.
    """

    def __init__(self, width: int, heads: int, dropout: float, layout: Layout) -> None:
        super().__init__()
        self.before_attention = norm(width, layout)
        self.before_mlp = norm(width, layout)
        self.attention = Attention(width, heads, dropout, bias=layout == "gpt2")
        self.mlp = SwiGLU(width) if layout == "llama" else GELUMLP(width, layout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_NTC: Tensor,
        rotary_2TD: Tensor | None,
        layer: int = 0,
        cache: KVCache | None = None,
        mask_N11T: Tensor | None = None,
    ) -> Tensor:
        """Return (N, T, C); see `Attention.forward` for the arguments."""
        x_NTC = x_NTC + self.dropout(self.attention(self.before_attention(x_NTC), rotary_2TD, layer, cache, mask_N11T))
        return x_NTC + self.dropout(self.mlp(self.before_mlp(x_NTC)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention, causal by default, with rotary positions if given (Su et al. 2021, arXiv:2104.09864).

    Raises:
        ValueError: the width is not an even multiple of the heads.
    """

    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        _check_head_width(width, heads)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.heads = heads
        self.dropout = dropout

    def forward(
        self,
        x_NTC: Tensor,
        rotary_2TD: Tensor | None,
        layer: int = 0,
        cache: KVCache | None = None,
        mask_N11T: Tensor | None = None,
    ) -> Tensor:
        """Attend to each token itself, earlier ones and the cache's; or, if given, to those where the mask is true."""
        n, t, c = x_NTC.shape
        q_NHTD, k_NHTD, v_NHTD = self.qkv(x_NTC).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if rotary_2TD is not None:
            q_NHTD = apply_rotary(q_NHTD, rotary_2TD)
            k_NHTD = apply_rotary(k_NHTD, rotary_2TD)
        if cache is not None:
            k_NHTD, v_NHTD = cache.append(layer, k_NHTD, v_NHTD)
        dropout = self.dropout if self.training else 0.0
        # a single token with a cache attends to all that the cache holds, which `is_causal` would hide
        causal = mask_N11T is None and (cache is None or t > 1)
        y_NHTD = F.scaled_dot_product_attention(q_NHTD, k_NHTD, v_NHTD, mask_N11T, dropout, is_causal=causal)
        return self.out(y_NHTD.transpose(1, 2).reshape(n, t, c))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to other ones, given as `keys_values`. Raises as `Attention` does."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        _check_head_width(width, heads)
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.heads = heads
        self.dropout = dropout

    def keys_values(self, x_NSC: Tensor, rotary_2SD: Tensor) -> Tensor:
        """Return keys, with rotary positions, and values: (2, N, H, S, D)."""
        k_NHSD, v_NHSD = self.kv(x_NSC).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return torch.stack([apply_rotary(k_NHSD, rotary_2SD), v_NHSD])

    def forward(self, x_NTC: Tensor, rotary_2TD: Tensor, kv_2NHSD: Tensor, mask_N1TS: Tensor) -> Tensor:
        """Attend from (N, T, C) to the positions where the mask is true: one or more for each token."""
        q_NHTD = apply_rotary(self.q(x_NTC).unflatten(2, (self.heads, -1)).transpose(1, 2), rotary_2TD)
        dropout = self.dropout if self.training else 0.0
        k_NHSD, v_NHSD = kv_2NHSD
        y_NHTD = F.scaled_dot_product_attention(q_NHTD, k_NHSD, v_NHSD, mask_N1TS, dropout)
        return self.out(y_NHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    """Gated MLP (Shazeer 2020) with as many weights as a plain MLP of hidden width 4C."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * round(width / 3)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x_NTC: Tensor) -> Tensor:
        gate_NTF, up_NTF = self.gate_up(x_NTC).chunk(2, dim=-1)
        return self.down(F.silu(gate_NTF) * up_NTF)  # type: ignore[no-any-return]


class GELUMLP(nn.Module):
    """MLP of hidden width 4C with GELU."""

    def __init__(self, width: int, layout: Layout) -> None:
        super().__init__()
        bias = layout == "gpt2"
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)
        self.approximate = "tanh" if layout == "gpt2" else "none"

    def forward(self, x_NTC: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_NTC), approximate=self.approximate))  # type: ignore[no-any-return]


def norm(width: int, layout: Layout) -> nn.Module:
    """Return the RMS norm (llama) or layer norm of a layout."""
    return nn.RMSNorm(width, eps=1e-5) if layout == "llama" else nn.LayerNorm(width, bias=layout == "gpt2")


def masked_mean(x_NTC: Tensor, tokens_NT: Tensor) -> Tensor:
    """Average over the positions that hold a token: (N, C)."""
    valid_NT1 = (tokens_NT >= 0)[..., None]
    return (x_NTC * valid_NT1).sum(1) / valid_NT1.sum(1).clamp(min=1)


def rotary_table(context: int, size: int) -> Tensor:
    """Return cosine and sine (2, T, D) of each position's rotation angle for each pair of channels (d, d + D/2)."""
    frequencies_D = _ROTARY_BASE ** (-torch.arange(0, size, 2) / size).repeat(2)
    angles_TD = torch.arange(context)[:, None] * frequencies_D
    return torch.stack([angles_TD.cos(), angles_TD.sin()])


def slice_rotary(rotary_2TD: Tensor, first: int, last: int) -> Tensor:
    """Return the rotary table of positions `first` to `last` - 1.

    Under export the rows are gathered: an exporter records whether a slice is the whole buffer, and would make the
    longest input a special case.
    """
    if torch.compiler.is_exporting():
        return rotary_2TD.index_select(1, torch.arange(first, last, device=rotary_2TD.device))
    return rotary_2TD[:, first:last]


def apply_rotary(x_NHTD: Tensor, rotary_2TD: Tensor) -> Tensor:
    """Rotate queries or keys by their positions: their products then depend on the distance alone."""
    first, second = x_NHTD.chunk(2, dim=-1)
    return x_NHTD * rotary_2TD[0] + torch.cat([-second, first], dim=-1) * rotary_2TD[1]


def init_transformer_weights(module: nn.Module) -> None:
    """Initialize a module as GPT-2 and BERT do, in place, for `Module.apply`; the padding embedding stays zero."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


def scale_residual_init(model: nn.Module, num_residuals: int) -> None:
    """Scale the initial weights of residual projections by 1/sqrt(`num_residuals`) (Radford et al. 2019)."""
    for name, parameter in model.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(num_residuals))
