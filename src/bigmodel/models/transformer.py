"""Layers that several transformers share.

N sequences, T tokens, C channels, H heads of D channels, F channels within an MLP, L layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.attention import Attention, Heads, KVCache, check_head_width

__all__ = [
    "BlockOptions",
    "EncoderBlock",
    "Layout",
    "SwiGLU",
    "TransformerBlock",
    "init_transformer_weights",
    "masked_mean",
    "norm",
    "scale_residual_init",
]

Layout = Literal["llama", "gpt2", "nanogpt"]
Biases = Literal["none", "qkv", "all"]
_NORM_EPS = 1e-5


class EncoderBlock(nn.Module):
    """Bidirectional pre-norm block (Xiong et al. 2020, arXiv:2002.04745): layer norm, GELU, biases.

    `mask_N11T` (bool) is true for the tokens that may be attended to.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        check_head_width(width, heads, even=False)
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


@dataclass(frozen=True)
class BlockOptions:
    """How a block departs from its layout.

    - `hidden`: F, where it is not about 8/3 C (llama) or 4 C.
    - `attention_bias`: of queries, keys and values (qkv), of the output too (all) or of none; None: as the layout.
    """

    heads: Heads = Heads()  # noqa: RUF009  # frozen
    hidden: int | None = None
    attention_bias: Biases | None = None
    norm_eps: float = _NORM_EPS


class TransformerBlock(nn.Module):
    """Pre-norm block: attention, then an MLP, each in a residual branch.

    - llama: RMS norm, SwiGLU (Shazeer 2020, arXiv:2002.05202), no biases.
    - gpt2: layer norm, GELU by its tanh approximation, biases.
    - nanogpt: layer norm, GELU, no biases.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        layout: Layout,
        options: BlockOptions = BlockOptions(),  # frozen
    ) -> None:
        super().__init__()
        biases = options.attention_bias or ("all" if layout == "gpt2" else "none")
        self.before_attention = norm(width, layout, options.norm_eps)
        self.before_mlp = norm(width, layout, options.norm_eps)
        self.attention = Attention(width, heads, dropout, biases != "none", options.heads, biases == "all")
        self.mlp = SwiGLU(width, options.hidden) if layout == "llama" else GELUMLP(width, layout, options.hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_NTC: Tensor,
        rotary_2TD: Tensor | None,
        layer: int = 0,
        cache: KVCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return (N, T, C); see `Attention.forward` for the arguments."""
        x_NTC = x_NTC + self.dropout(self.attention(self.before_attention(x_NTC), rotary_2TD, layer, cache, mask))
        return x_NTC + self.dropout(self.mlp(self.before_mlp(x_NTC)))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    """Gated MLP (Shazeer 2020), by default with as many weights as a plain MLP of hidden width 4C."""

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = 8 * round(width / 3) if hidden is None else hidden
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x_NTC: Tensor) -> Tensor:
        gate_NTF, up_NTF = self.gate_up(x_NTC).chunk(2, dim=-1)
        return self.down(F.silu(gate_NTF) * up_NTF)  # type: ignore[no-any-return]


class GELUMLP(nn.Module):
    """MLP of hidden width 4C with GELU."""

    def __init__(self, width: int, layout: Layout, hidden: int | None = None) -> None:
        super().__init__()
        bias = layout == "gpt2"
        hidden = 4 * width if hidden is None else hidden
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.approximate = "tanh" if layout == "gpt2" else "none"

    def forward(self, x_NTC: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_NTC), approximate=self.approximate))  # type: ignore[no-any-return]


def norm(width: int, layout: Layout, eps: float = _NORM_EPS) -> nn.Module:
    """Return the RMS norm (llama) or layer norm of a layout."""
    return nn.RMSNorm(width, eps=eps) if layout == "llama" else nn.LayerNorm(width, eps=eps, bias=layout == "gpt2")


def masked_mean(x_NTC: Tensor, tokens_NT: Tensor) -> Tensor:
    """Average over the positions that hold a token: (N, C)."""
    valid_NT1 = (tokens_NT >= 0)[..., None]
    return (x_NTC * valid_NT1).sum(1) / valid_NT1.sum(1).clamp(min=1)


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
