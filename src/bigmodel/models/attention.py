"""Attention layers that several transformers share, and the cache of their keys and values.

N sequences, T tokens that attend to S, C channels, H heads of queries and K of keys, D channels each, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.rotary import apply_rotary

__all__ = ["Attention", "CrossAttention", "Heads", "KVCache", "check_head_width", "text_mask"]

_FIRST_CAPACITY = 256  # tokens; a cache grows as a text does


def check_head_width(width: int, heads: int, even: bool = True) -> None:
    if width % (heads * (1 + even)):
        even_part = ", an even number each" if even else ""
        raise ValueError(f"width: {width} cannot be divided among {heads} heads{even_part}")


@dataclass(frozen=True)
class Heads:
    """How attention departs from one key head of width C / H for each query head.

    - `kv_heads`: each head of keys and values serves as many heads of queries (Ainslie et al. 2023, arXiv:2305.13245).
    - `width`: D, where it is not C / H.
    - `norm_eps`: queries and keys are RMS-normalized with it (Henry et al. 2020, arXiv:2010.04245); None: not at all.
    - `window`: a token attends to this many tokens, itself included (Jiang et al. 2023, arXiv:2310.06825).
    """

    kv_heads: int | None = None
    width: int | None = None
    norm_eps: float | None = None
    window: int | None = None

    def sizes(self, width: int, heads: int) -> tuple[int, int]:
        """Return the number of key heads, and the channels of a head. ValueError where they do not divide."""
        kv_heads = heads if self.kv_heads is None else self.kv_heads
        if heads % kv_heads:
            raise ValueError(f"kv_heads: {heads} heads cannot be divided among {kv_heads}")
        if self.width is None:
            check_head_width(width, heads)
        elif self.width % 2:
            raise ValueError(f"head_width: must be even, got {self.width}")
        return kv_heads, self.width or width // heads


class KVCache:
    """Key/value cache for incremental decoding: (L, 2, N, K, at most T_max, D).

    The first `length` places are filled. Dtype, device and width are those of the embedding `like`. `positions_NS` are
    those of the tokens in their texts, where a row may hold several.
    """

    def __init__(
        self, like: Tensor, layers: int, heads: int, count: int, context: int, head_width: int | None = None
    ) -> None:
        size = like.shape[1] // heads if head_width is None else head_width
        self._context = context
        self.kv_L2NKTD = like.new_zeros(layers, 2, count, heads, min(context, _FIRST_CAPACITY), size)
        self.length = 0
        self.positions_NS: Tensor | None = None

    def append_positions(self, positions_NT: Tensor) -> Tensor:
        """Append the positions of new tokens; return those of all tokens so far."""
        before = [] if self.positions_NS is None else [self.positions_NS]
        self.positions_NS = torch.cat([*before, positions_NT], dim=1)
        return self.positions_NS

    def append(self, layer: int, k_NKTD: Tensor, v_NKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values of new tokens; return those of all tokens so far."""
        end = self.length + k_NKTD.shape[2]
        if end > self.kv_L2NKTD.shape[4]:
            self._grow(end)
        kv_2NKTD = self.kv_L2NKTD[layer]
        kv_2NKTD[0, :, :, self.length : end] = k_NKTD
        kv_2NKTD[1, :, :, self.length : end] = v_NKTD
        return kv_2NKTD[0, :, :, :end], kv_2NKTD[1, :, :, :end]

    def _grow(self, length: int) -> None:
        old = self.kv_L2NKTD
        capacity = max(length, min(self._context, 2 * old.shape[4]))
        self.kv_L2NKTD = old.new_zeros(*old.shape[:4], capacity, old.shape[5])
        self.kv_L2NKTD[:, :, :, :, : self.length] = old[:, :, :, :, : self.length]

    def reorder(self, rows_N: Tensor) -> None:
        """Replace sequence n by sequence `rows_N[n]`, in place."""
        self.kv_L2NKTD = self.kv_L2NKTD[:, :, rows_N]
        self.positions_NS = None if self.positions_NS is None else self.positions_NS[rows_N]

    def truncate(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        self.length = min(self.length, length)
        self.positions_NS = None if self.positions_NS is None else self.positions_NS[:, :length]


class Attention(nn.Module):
    """Multi-head self-attention, causal by default, with rotary positions if given (Su et al. 2021, arXiv:2104.09864).

    Raises:
        ValueError: the width is not an even multiple of the heads, or the heads no multiple of the key heads.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        bias: bool,
        shape: Heads = Heads(),  # frozen
        out_bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.kv_heads, self.head_width = shape.sizes(width, heads)
        self.qkv = nn.Linear(width, (heads + 2 * self.kv_heads) * self.head_width, bias=bias)
        self.out = nn.Linear(heads * self.head_width, width, bias=bias if out_bias is None else out_bias)
        normed = shape.norm_eps is not None
        self.q_norm = nn.RMSNorm(self.head_width, eps=shape.norm_eps) if normed else None
        self.k_norm = nn.RMSNorm(self.head_width, eps=shape.norm_eps) if normed else None
        self.heads = heads
        self.window = shape.window
        self.dropout = dropout

    def forward(
        self,
        x_NTC: Tensor,
        rotary_2TD: Tensor | None,
        layer: int = 0,
        cache: KVCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend to each token itself, earlier ones and the cache's; or, if given, to those where the mask is true.

        The mask is bool, (N, 1, 1, S) or (N, 1, T, S).
        """
        sizes = [self.heads, self.kv_heads, self.kv_heads]
        heads_NTXD = self.qkv(x_NTC).unflatten(2, (sum(sizes), self.head_width))
        q_NHTD, k_NKTD, v_NKTD = (part.transpose(1, 2) for part in heads_NTXD.split(sizes, dim=2))
        if self.q_norm is not None and self.k_norm is not None:
            q_NHTD, k_NKTD = self.q_norm(q_NHTD), self.k_norm(k_NKTD)
        if rotary_2TD is not None:
            q_NHTD = apply_rotary(q_NHTD, rotary_2TD)
            k_NKTD = apply_rotary(k_NKTD, rotary_2TD)
        is_first = cache is None or not cache.length
        if cache is not None:
            k_NKTD, v_NKTD = cache.append(layer, k_NKTD, v_NKTD)
        y_NHTD = self._attend(q_NHTD, k_NKTD, v_NKTD, mask, is_first)
        return self.out(y_NHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _attend(self, q_NHTD: Tensor, k_NKSD: Tensor, v_NKSD: Tensor, mask: Tensor | None, is_first: bool) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if not is_first and q_NHTD.shape[2] == 1:  # one token, which sees all that came before
            if mask is None and self.window is not None:
                k_NKSD, v_NKSD = k_NKSD[:, :, -self.window :], v_NKSD[:, :, -self.window :]
            groups_NKGD = q_NHTD.reshape(len(q_NHTD), self.kv_heads, -1, self.head_width)  # without a copy of the keys
            return F.scaled_dot_product_attention(groups_NKGD, k_NKSD, v_NKSD, mask, dropout).reshape_as(q_NHTD)
        if self.kv_heads != self.heads:
            k_NKSD, v_NKSD = (one.repeat_interleave(self.heads // self.kv_heads, 1) for one in (k_NKSD, v_NKSD))
        is_causal = mask is None and is_first and (self.window is None or q_NHTD.shape[2] <= self.window)
        if mask is None and not is_causal:
            mask = _causal_mask(q_NHTD.shape[2], k_NKSD.shape[2], self.window, q_NHTD.device)
        return F.scaled_dot_product_attention(q_NHTD, k_NKSD, v_NKSD, mask, dropout, is_causal=is_causal)


def _causal_mask(length: int, seen: int, window: int | None, device: torch.device) -> Tensor:
    """Return bool (T, S): which of S tokens each of the last T attends to."""
    distance_TS = torch.arange(seen - length, seen, device=device)[:, None] - torch.arange(seen, device=device)
    return (distance_TS >= 0) if window is None else (distance_TS >= 0) & (distance_TS < window)


def text_mask(positions_NS: Tensor, length: int, window: int | None) -> Tensor:
    """Return bool (N, 1, T, S): which of S tokens each of the last T attends to, so that none sees another text.

    `positions_NS` are those of the tokens in their texts; each 0 begins a text.
    """
    texts_NS = (positions_NS == 0).cumsum(1)
    size = texts_NS.shape[1]
    same_NTS = texts_NS[:, size - length :, None] == texts_NS[:, None]
    return (same_NTS & _causal_mask(length, size, window, positions_NS.device))[:, None]


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to other ones, given as `keys_values`. Raises as `Attention` does."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        check_head_width(width, heads)
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
