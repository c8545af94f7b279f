"""FLAC, Ogg, MP3 and what else libsndfile reads, through the optional package soundfile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

CODED = frozenset({".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus"})
_UNKNOWN = (1 << 63) - 1  # the frames of a stream; libsndfile cannot go on after the first block of one


def decode_sound(
    file: BinaryIO, coding: str, hold: Callable[[int, int], None], block: int
) -> tuple[NDArray[np.float32], int, int]:
    """Decode a sound file: float32 (T), the mean of its channels, with its rate and the number of channels.

    `hold` is asked whether so many samples of so many channels are right, before and while they are decoded: what a
    header says of them need not be true.

    Raises:
        ImportError: soundfile is not installed; the text is `coding`.
        ValueError: the file is no sound that libsndfile reads, or `hold` refuses it.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: without its library
        raise ImportError(coding) from error
    parts: list[NDArray[Any]] = []
    try:
        with soundfile.SoundFile(file) as sound:
            rate, channels = int(sound.samplerate), int(sound.channels)
            if sound.frames >= _UNKNOWN:
                raise ValueError("it does not say how long it is, as what was written to a pipe; write it to a file")
            hold(max(1, sound.frames), channels)
            count = 0
            while len(samples_TC := sound.read(block, dtype="float32", always_2d=True)):
                count += len(samples_TC)
                hold(count, channels)
                parts.append(samples_TC.mean(1, dtype=np.float32))
            hold(count, channels)
    except soundfile.SoundFileError as error:
        raise ValueError(str(error).partition(": ")[2] or str(error)) from error
    return np.concatenate(parts), rate, channels
