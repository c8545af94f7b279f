"""Waves in 256 codes, finer for quiet sounds than for loud ones: mu-law (ITU-T G.711), as WaveNet takes it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CODES = 256
SILENCE = CODES // 2
_MU = CODES - 1


def mu_law_encode(wave_T: Tensor) -> Tensor:
    """int16 from 0 to 255 of a wave from -1 to 1; what lies outside is cut off."""
    companded = wave_T.sign() * torch.log1p(_MU * wave_T.abs().clamp(max=1)) / math.log1p(_MU)
    return ((companded + 1) / 2 * _MU + 0.5).to(torch.int16)


def mu_law_decode(codes_T: Tensor) -> Tensor:
    """float32 from -1 to 1."""
    companded = 2 * codes_T.float() / _MU - 1
    return companded.sign() * torch.expm1(companded.abs() * math.log1p(_MU)) / _MU
