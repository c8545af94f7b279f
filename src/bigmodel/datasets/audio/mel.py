"""Compute log-mel spectrograms of waves, with torch's short-time Fourier transform."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from bigmodel.constraints import Bounds, NonNegative, Positive, PositiveInt

_LEAST_ENERGY = 1e-6  # digital silence has no energy; rounding to 16 bits gives about 1e-8
_LEAST_DEVIATION = 1e-3  # digital silence has no deviation


@dataclass(frozen=True)
class LogMel:
    """Log energies in `mels` triangular bands, equally wide on the mel scale (Davis & Mermelstein 1980).

    `rate` is in samples a second, `window` (Hann) and `hop` in samples, `low_hz` and `high_hz` in hertz. Each clip has
    mean 0 and deviation 1 over all its values, so that how loud it was recorded does not matter.

    Raises:
        ValueError: the bands do not lie between 0 and half the rate, or are too narrow for the window.
    """

    rate: Annotated[int, Bounds(at_least=1_000, at_most=1_000_000)] = 8000
    window: PositiveInt = 256
    hop: PositiveInt = 80
    mels: PositiveInt = 40
    low_hz: NonNegative = 20.0
    high_hz: Positive = 4000.0

    def __post_init__(self) -> None:
        if not self.low_hz < self.high_hz <= self.rate / 2:
            raise ValueError(f"low_hz, high_hz: must rise, up to half the rate ({self.rate / 2:g})")
        if self.window > self.rate or self.mels > self.window:
            raise ValueError("window: must be a second or less, and no shorter than there are mels")

    def __call__(self, wave_T: Tensor) -> Tensor:
        """Return float32 (F, M) of a wave (T): F = T // hop + 1 frames, each around a multiple of the hop."""
        spectrum_KF = torch.stft(
            wave_T,
            self.window,
            self.hop,
            window=torch.hann_window(self.window),
            pad_mode="constant",
            return_complex=True,
        )
        energies_FM = spectrum_KF.abs().square().T @ self.bands()
        logs_FM = energies_FM.clamp(min=_LEAST_ENERGY).log()
        return (logs_FM - logs_FM.mean()) / logs_FM.std(correction=0).clamp(min=_LEAST_DEVIATION)

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a wave of `num_samples`."""
        return 1 + (num_samples + 2 * (self.window // 2) - self.window) // self.hop

    def bands(self) -> Tensor:
        """Return float32 (K, M): the weight of each of the K = window // 2 + 1 frequencies in each band."""
        frequencies_K1 = torch.linspace(0, self.rate / 2, self.window // 2 + 1)[:, None]
        corners = torch.linspace(_mel(self.low_hz), _mel(self.high_hz), self.mels + 2)
        low, middle, high = (_hertz(corners[i : i + self.mels]) for i in range(3))
        rising = (frequencies_K1 - low) / (middle - low)
        falling = (high - frequencies_K1) / (high - middle)
        return torch.minimum(rising, falling).clamp(min=0)

    def constants(self) -> Mapping[str, Any]:
        """Constants of the computation, for programs that repeat it without this class."""
        return {
            "window_shape": "hann, periodic",
            "padding": "zeros, window / 2 at both ends",
            "power": 2,
            "mel_scale": "2595 * log10(1 + hertz / 700)",
            "least_energy": _LEAST_ENERGY,
            "least_std": _LEAST_DEVIATION,
        }

    def node(self) -> Mapping[str, Any]:
        """Return the `_target_` node that a checkpoint saves to rebuild this transform."""
        return {"_target_": "bigmodel.datasets.audio.mel.LogMel", **asdict(self)}


def pad_or_trim(frames_FM: Tensor, count: int) -> Tensor:
    """Cut a clip at the end, or pad it there with its least value, which is its silence."""
    missing = count - len(frames_FM)
    if missing <= 0:
        return frames_FM[:count]
    return torch.cat([frames_FM, frames_FM.min().expand(missing, frames_FM.shape[1])])


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _hertz(mels: Tensor) -> Tensor:
    return 700 * (10 ** (mels / 2595) - 1)
