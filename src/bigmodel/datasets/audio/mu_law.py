"""Quantize waves to 256 codes by mu-law (ITU-T G.711), finer for quiet sounds, as WaveNet does."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CODES = 256
SILENCE = CODES // 2
_MU = CODES - 1


def mu_law_encode(wave_T: Tensor) -> Tensor:
    """Encode a wave, clamped to [-1, 1], as int16 codes from 0 to 255."""
    companded = wave_T.sign() * torch.log1p(_MU * wave_T.abs().clamp(max=1)) / math.log1p(_MU)
    return ((companded + 1) / 2 * _MU + 0.5).to(torch.int16)


def mu_law_decode(codes_T: Tensor) -> Tensor:
    """Decode codes to a float32 wave in [-1, 1]."""
    companded = 2 * codes_T.float() / _MU - 1
    return companded.sign() * torch.expm1(companded.abs() * math.log1p(_MU)) / _MU
