"""Rotary positions (Su et al. 2021, arXiv:2104.09864): queries and keys are rotated by angles that grow with position.

T tokens, H heads of D channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["ROPE_SCALINGS", "apply_rotary", "gather_rotary", "rotary_table", "slice_rotary"]

ROPE_SCALINGS: Mapping[str, frozenset[str]] = {  # keys of each type of scaling
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_context"}),
}
_THETA = 10_000.0


def rotary_table(context: int, size: int, theta: float = _THETA, scaling: Mapping[str, Any] | None = None) -> Tensor:
    """Return cosine and sine (2, T, D) of each position's rotation angle for each pair of channels (d, d + D/2).

    `scaling` slows the rotation for texts longer than a model was first trained on: by a factor (`type` linear; Chen et
    al. 2023, arXiv:2306.15595), or as Llama 3.1 does, slow rotations alone (`type` llama3).

    Raises:
        ValueError: the scaling has other keys than its type, or no positive numbers.
    """
    frequencies_D = theta ** (-torch.arange(0, size, 2) / size).repeat(2)
    if scaling is not None:
        frequencies_D = _scale(frequencies_D, **_check_scaling(scaling))
    angles_TD = torch.arange(context)[:, None] * frequencies_D
    return torch.stack([angles_TD.cos(), angles_TD.sin()])


def _check_scaling(scaling: Mapping[str, Any]) -> dict[str, Any]:
    known = ROPE_SCALINGS.get(str(scaling.get("type")))
    if known is None:
        raise ValueError(f"rope_scaling.type: must be {' or '.join(ROPE_SCALINGS)}, got {scaling.get('type')!r}")
    numbers = {str(key): value for key, value in scaling.items() if key != "type"}
    if numbers.keys() != known:
        raise ValueError(f"rope_scaling: type {scaling['type']} takes {', '.join(sorted(known))}, got {[*numbers]}")
    for key, value in numbers.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise ValueError(f"rope_scaling.{key}: must be a positive number, got {value!r}")
    if numbers.get("low_freq_factor", 0) >= numbers.get("high_freq_factor", 1):
        raise ValueError("rope_scaling.low_freq_factor: must be less than high_freq_factor")
    return numbers


def _scale(
    frequencies_D: Tensor,
    factor: float,
    low_freq_factor: float | None = None,
    high_freq_factor: float | None = None,
    original_context: float | None = None,
) -> Tensor:
    """Divide frequencies by `factor`; in Llama 3's way those that turn often in the original context stay."""
    if low_freq_factor is None or high_freq_factor is None or original_context is None:
        return frequencies_D / factor
    turns_D = original_context * frequencies_D / (2 * math.pi)
    kept_D = ((turns_D - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return kept_D * frequencies_D + (1 - kept_D) * frequencies_D / factor


def slice_rotary(rotary_2TD: Tensor, first: int, last: int) -> Tensor:
    """Return the rotary table of positions `first` to `last` - 1.

    Under export the rows are gathered: an exporter records whether a slice is the whole buffer, and would make the
    longest input a special case.
    """
    if torch.compiler.is_exporting():
        return rotary_2TD.index_select(1, torch.arange(first, last, device=rotary_2TD.device))
    return rotary_2TD[:, first:last]


def gather_rotary(rotary_2TD: Tensor, positions_NT: Tensor) -> Tensor:
    """Return the rotary table of these positions: (2, N, 1, T, D), for all heads of a row."""
    return rotary_2TD[:, positions_NT][:, :, None]


def apply_rotary(x_NHTD: Tensor, rotary_2TD: Tensor) -> Tensor:
    """Rotate queries or keys by their positions: their products then depend on the distance alone."""
    first, second = x_NHTD.chunk(2, dim=-1)
    return x_NHTD * rotary_2TD[0] + torch.cat([-second, first], dim=-1) * rotary_2TD[1]
