"""Weights of a network for other pictures: of another number of channels, or of another size."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["adapt_tensor"]

_POSITIONS = ("positions", "pos_embedding", "pos_embed", "position_embedding", "position_embeddings")
_PREFIXES = (1, 0, 2, 5)  # tokens before the patches: a class, none, a distilled one as well, registers as well


def adapt_tensor(name: str, theirs: Tensor, own: Tensor, model: nn.Module) -> tuple[Tensor, str] | None:
    """A tensor in the shape of the model's own of that name, with words for what was done; None where nothing can be.

    The first convolution takes grey pictures as it did colours that are all the same, and the other way round. The
    learned positions of patches are resampled, bicubic, from one square grid to another.
    """
    if name == _first_convolution(model) and theirs.ndim == own.ndim == 4 and theirs.shape[2:] == own.shape[2:]:
        if theirs.shape[0] != own.shape[0] or {theirs.shape[1], own.shape[1]} != {1, 3}:
            return None
        if own.shape[1] == 1:
            return theirs.sum(1, keepdim=True), "3 channels summed to 1"
        return theirs.expand(own.shape) / 3, "1 channel shared among 3"
    if name.rpartition(".")[2] in _POSITIONS and _first_convolution(model) is not None:
        return _resampled(theirs, own)
    return None


def _first_convolution(model: nn.Module) -> str | None:
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{path}.weight"
    return None


def _resampled(theirs: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
    """Positions ([1,] tokens, width)."""
    if theirs.ndim != own.ndim or theirs.shape[-1] != own.shape[-1] or set(theirs.shape[:-2]) - {1}:
        return None
    tokens, wanted = theirs.shape[-2], own.shape[-2]
    for prefix in _PREFIXES:
        old, new = math.isqrt(max(0, tokens - prefix)), math.isqrt(max(0, wanted - prefix))
        if old and new and old**2 + prefix == tokens and new**2 + prefix == wanted:
            flat = theirs.reshape(tokens, -1)
            grid = flat[prefix:].T.reshape(1, -1, old, old).float()
            resized = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False, antialias=new < old)
            patches = resized.reshape(flat.shape[1], -1).T.to(theirs.dtype)
            joined = patches.new_empty(own.shape).reshape(wanted, -1)
            joined[:prefix], joined[prefix:] = flat[:prefix], patches
            return joined.reshape(own.shape), f"positions resampled from {old}x{old} to {new}x{new}"
    return None


def prefix_to_strip(names: Mapping[str, object], own: Mapping[str, object]) -> str | None:
    """The beginning of the file's names without which most of them are the model's, if more are so than with it."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            if ".".join(parts[depth:]) in own:
                prefix = ".".join(parts[:depth]) + "."
                counts[prefix] = counts.get(prefix, 0) + 1
    best = max(counts, key=lambda prefix: counts[prefix], default=None)
    return best if best is not None and counts[best] > sum(name in own for name in names) else None
