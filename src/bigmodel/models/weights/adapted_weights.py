"""Adapt the weights of an image network to another number of channels or another image size."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["adapt_tensor"]

_POSITIONS = ("positions", "pos_embedding", "pos_embed", "position_embedding", "position_embeddings")
_PREFIXES = (1, 0, 2, 5)  # tokens before the patches: class; none; class and distillation; class and registers


def adapt_tensor(name: str, given: Tensor, own: Tensor, model: nn.Module) -> tuple[Tensor, str] | None:
    """Return a tensor in the shape of the model's own, and a description of the change; None if it cannot be adapted.

    The first convolution is summed over color channels for gray pictures, or spread over them. Learned patch positions
    are resampled bicubically from one square grid to another.
    """
    if name == _first_convolution(model) and given.ndim == own.ndim == 4 and given.shape[2:] == own.shape[2:]:
        if given.shape[0] != own.shape[0] or {given.shape[1], own.shape[1]} != {1, 3}:
            return None
        if own.shape[1] == 1:
            return given.sum(1, keepdim=True), "3 channels summed to 1"
        return given.expand(own.shape) / 3, "1 channel spread over 3"
    if name.rpartition(".")[2] in _POSITIONS and _first_convolution(model) is not None:
        return _resample_positions(given, own)
    return None


def _first_convolution(model: nn.Module) -> str | None:
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{path}.weight"
    return None


def _resample_positions(given: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
    """Resample positions ([1,] tokens, width) to another number of patches."""
    if given.ndim != own.ndim or given.shape[-1] != own.shape[-1] or set(given.shape[:-2]) - {1}:
        return None
    num_given, num_own = given.shape[-2], own.shape[-2]
    for prefix in _PREFIXES:
        old, new = math.isqrt(max(0, num_given - prefix)), math.isqrt(max(0, num_own - prefix))
        if old and new and old**2 + prefix == num_given and new**2 + prefix == num_own:
            flat = given.reshape(num_given, -1)
            grid = flat[prefix:].T.reshape(1, -1, old, old).float()
            resized = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False, antialias=new < old)
            patches = resized.reshape(flat.shape[1], -1).T.to(given.dtype)
            joined = patches.new_empty(own.shape).reshape(num_own, -1)
            joined[:prefix] = flat[:prefix]
            joined[prefix:] = patches
            return joined.reshape(own.shape), f"positions resampled from {old}x{old} to {new}x{new}"
    return None


def prefix_to_strip(names: Mapping[str, object], own: Mapping[str, object]) -> str | None:
    """Return the prefix whose removal lets the most names match the model's, if more match than with it."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            if ".".join(parts[depth:]) in own:
                prefix = ".".join(parts[:depth]) + "."
                counts[prefix] = counts.get(prefix, 0) + 1
    best = max(counts, key=lambda prefix: counts[prefix], default=None)
    return best if best is not None and counts[best] > sum(name in own for name in names) else None
