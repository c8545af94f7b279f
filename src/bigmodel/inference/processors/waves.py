"""Convert sounds in memory, samples with their rate, to waves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigmodel.datasets.audio.wav import resample
from bigmodel.errors import DataError
from bigmodel.inference.inputs import as_array, is_sound

_MIN_HZ = 1_000
_MAX_HZ = 1_000_000


def to_wave(value: object, rate: int) -> Tensor:
    """Convert a pair (samples, sample rate) to mono at `rate` hertz: float32 (T,) in [-1, 1].

    Samples are (T,), an array (T, channels) or a tensor (channels, T). Whole numbers are scaled by the largest value of
    their type, as in a wav file; floats lie in [-1, 1].

    Raises:
        DataError: `value` is no such pair, or its samples are invalid.
    """
    if not is_sound(value):
        raise DataError(f"input: a sound is a file or a pair (samples, rate), got a {type(value).__name__}")
    given, given_rate = value
    samples = as_array(given)
    samples = np.asarray(given) if samples is None else samples
    if samples.ndim == 2:
        channels, length = samples.shape if isinstance(given, Tensor) else samples.shape[::-1]
        if channels > length > 0:
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
    if given_rate != int(given_rate) or not _MIN_HZ <= given_rate <= _MAX_HZ:
        raise DataError(f"input: the rate of a sound is {_MIN_HZ} to {_MAX_HZ} whole hertz, got {given_rate}")
    return resample(torch.from_numpy(samples.astype(np.float32)), int(given_rate), rate)


def _full_scale(dtype: np.dtype[Any]) -> float:
    """Return the sample value of this type that stands for 1.0. DataError for other types."""
    if np.issubdtype(dtype, np.floating):
        return 1.0
    if dtype in (np.int16, np.int32):
        return float(2 ** (8 * dtype.itemsize - 1))
    raise DataError(f"input: samples are int16, int32 or floats from -1 to 1, got {dtype}")
