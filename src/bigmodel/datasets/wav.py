"""Wav files: PCM of 8, 16, 24 or 32 bits, any number of channels, by the standard library alone."""

from __future__ import annotations

import math
import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.errors import DataError

SUFFIXES = frozenset({".wav", ".wave"})
_LOWEST_HZ, _HIGHEST_HZ = 1_000, 1_000_000


def read_wav(path: str | os.PathLike[str], rate: int) -> Tensor:
    """float32 (T), from -1 to 1: the mean of the channels, at `rate` samples a second.

    Raises:
        DataError: there is no such file, it is no PCM wav file, is cut short or holds no sound.
    """
    try:
        with wave.open(os.fspath(path), "rb") as file:
            channels, width, own_rate, count = file.getparams()[:4]
            data = file.readframes(count)
        if width > 4 or not _LOWEST_HZ <= own_rate <= _HIGHEST_HZ:
            raise wave.Error(f"{8 * width} bits at {own_rate} Hz")
        if len(data) != count * channels * width:
            raise wave.Error(f"cut short: {len(data)} bytes of sound, where its header promises more")
        if not data:
            raise wave.Error("it holds no sound")
    except (OSError, EOFError, wave.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "it ends too soon"
        raise DataError(f"{Path(path).absolute()}: not a readable wav file ({reason}); mend or remove it") from error
    samples_TC = _decoded(data, width).reshape(-1, channels)
    return resampled(torch.from_numpy(samples_TC.mean(1, dtype=np.float32)), own_rate, rate)


def write_wav(path: str | os.PathLike[str], wave_T: Tensor, rate: int) -> None:
    """One channel of 16 bits from a wave between -1 and 1; what lies outside is cut off."""
    codes_T = (wave_T.clamp(-1, 1) * 32767).round().to(torch.int16)
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(codes_T.numpy().astype("<i2").tobytes())


def resampled(wave_T: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """The wave with its spectrum cut or filled up with zeros, so that nothing is folded back."""
    if old_rate == new_rate:
        return wave_T
    common = math.gcd(old_rate, new_rate)
    blocks = -(-len(wave_T) * common // old_rate)  # of a whole number of samples at either rate
    spectrum = torch.fft.rfft(wave_T, n=blocks * old_rate // common)
    length = max(1, round(len(wave_T) * new_rate / old_rate))
    resampled_T: Tensor = torch.fft.irfft(spectrum, n=blocks * new_rate // common)[:length]
    return resampled_T * (new_rate / old_rate)


def _decoded(data: bytes, width: int) -> NDArray[Any]:
    """float32 from -1 to 1; 8 bits are unsigned, more are signed."""
    if width == 1:
        return np.frombuffer(data, np.uint8).astype(np.float32) / 128 - 1
    if width == 3:
        wide_N4 = np.zeros((len(data) // 3, 4), np.uint8)
        wide_N4[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = wide_N4.tobytes(), 4
    codes: NDArray[Any] = np.frombuffer(data, f"<i{width}")
    return (codes / 2.0 ** (8 * width - 1)).astype(np.float32)
