"""Sounds in memory: samples and their rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigmodel.datasets.audio.wav import resample
from bigmodel.errors import DataError
from bigmodel.inference.inputs import as_array, is_sound

_LOWEST_HZ, _HIGHEST_HZ = 1_000, 1_000_000


def to_wave(value: object, rate: int) -> Tensor:
    """float32 (T) from -1 to 1 at `rate` of a pair (samples, their rate), the mean of its channels.

    Samples are (T) or, an array, (T, channels) or, a tensor, (channels, T). Whole numbers count as fractions of what
    their type holds, as in a wav file; floats are from -1 to 1.

    Raises:
        DataError: it is no such pair.
    """
    if not is_sound(value):
        raise DataError(f"input: a sound is a file or a pair (samples, rate), got a {type(value).__name__}")
    given, own_rate = value
    samples = as_array(given)
    samples = np.asarray(given) if samples is None else samples
    if samples.ndim == 2:
        channels, count = samples.shape if isinstance(given, Tensor) else samples.shape[::-1]
        if channels > count > 0:
            order = "(channels, T)" if isinstance(given, Tensor) else "(T, channels)"
            raise DataError(f"input: the samples of a sound are {order}, got {tuple(samples.shape)}; transpose them")
        samples = samples.mean(0) if isinstance(given, Tensor) else samples.mean(1)
        samples = samples.astype(np.float64) / _full_scale(np.asarray(given).dtype)
    elif samples.ndim == 1:
        samples = samples.astype(np.float64) / _full_scale(samples.dtype)
    else:
        raise DataError(f"input: the samples of a sound have one or two dimensions, got {samples.shape}")
    if not len(samples) or not np.isfinite(samples).all():
        raise DataError("input: the sound is empty, or not all of its samples are finite")
    if own_rate != int(own_rate) or not _LOWEST_HZ <= own_rate <= _HIGHEST_HZ:
        raise DataError(f"input: the rate of a sound is {_LOWEST_HZ} to {_HIGHEST_HZ} whole hertz, got {own_rate}")
    return resample(torch.from_numpy(samples.astype(np.float32)), int(own_rate), rate)


def _full_scale(dtype: np.dtype[Any]) -> float:
    if np.issubdtype(dtype, np.floating):
        return 1.0
    if dtype in (np.int16, np.int32):
        return float(2 ** (8 * dtype.itemsize - 1))
    raise DataError(f"input: samples are int16, int32 or floats from -1 to 1, got {dtype}")
