"""Read sounds as waves: plain wav files by their chunks, all other formats by `coded_sounds`."""

from __future__ import annotations

import io
import math
import os
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.datasets.audio.coded_sounds import CODED, decode_header, decode_sound
from bigmodel.errors import DataError
from bigmodel.safe_files import open_regular

_T = TypeVar("_T")

SUFFIXES = frozenset({".wav", ".wave", *CODED})
_LOWEST_HZ = 1_000
_HIGHEST_HZ = 1_000_000
_LARGEST_FILE = 1 << 30
_MOST_SAMPLES = 1 << 25  # of each channel: 12 minutes at 44.1 kHz, or 70 at 8 kHz
_MOST_VALUES = 1 << 27  # of all channels
_BLOCK = 1 << 20  # samples that are decoded at once
_PCM = 1
_FLOAT = 3
_EXTENSIBLE = 0xFFFE
_OPEN_END = 0x7FFFFF00  # bytes of sound that the header of a pipe's output promises, and more
_MOST_CHUNKS = 10_000  # of a RIFF file: each costs a read
_ROUGH = 1000  # a prime from which Fourier transforms of its multiples take ten times as long


@dataclass(frozen=True)
class Sound:
    """A decoded sound: `wave_T` float32 (T), the mean of its channels, in [-1, 1] unless the file goes beyond."""

    wave_T: Tensor
    rate: int
    channels: int


@dataclass(frozen=True)
class SoundHeader:
    """Header of a sound file; `num_samples` is that of each channel."""

    rate: int
    channels: int
    num_samples: int


@dataclass(frozen=True)
class _PlainFormat(SoundHeader):
    """Format of a wav file that is read without soundfile: PCM or floats of `width` bytes."""

    coding: int
    width: int


class SoundfileMissing(DataError):
    """The file may be fine, and the package that decodes its coding is not installed."""


def read_wav(path: str | os.PathLike[str], rate: int) -> Tensor:
    """Read a sound file of any of SUFFIXES as float32 (T), the mean of its channels, at `rate` samples a second.

    Raises:
        DataError: as `read_sound`.
    """
    sound = read_sound(path)
    return resample(sound.wave_T, sound.rate, rate)


def read_sound(path: str | os.PathLike[str]) -> Sound:
    """Read a sound file as it is: PCM of 8, 16, 24 or 32 bits and floats by this file alone, all else by soundfile.

    Raises:
        DataError: there is no such file, it is no sound that can be read, is cut short, empty or too long.
    """
    return _open(path, _read)


def read_header(path: str | os.PathLike[str]) -> SoundHeader:
    """Read a sound file's header, without decoding the sound; the length of an MP3 file is an estimate.

    Raises:
        DataError: as `read_sound`, as far as the header shows it.
    """
    return _open(path, _read_header)


def _open(path: str | os.PathLike[str], read: Callable[[BufferedReader], _T]) -> _T:
    """Read a regular file; every error becomes a DataError that names the file."""
    try:
        with open_regular(path, _LARGEST_FILE) as file:
            return read(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "it is cut short"
        kind = "wav file" if Path(path).suffix.lower() in (".wav", ".wave") else "sound file"
        raise DataError(f"{Path(path).absolute()}: not a readable {kind} ({reason}); mend or remove it") from error
    except ImportError as error:
        raise SoundfileMissing(
            f"{Path(path).absolute()}: {error} needs soundfile; pip install 'bigmodel-train[audio]', or convert it "
            "to PCM wav"
        ) from error


def write_wav(path: str | os.PathLike[str], wave_T: Tensor, rate: int) -> None:
    """Write a wave, clamped to [-1, 1], as one channel of 16 bits."""
    Path(path).write_bytes(encode_wav(wave_T, rate))


def encode_wav(wave_T: Tensor, rate: int) -> bytes:
    """Return the bytes of a wav file: a wave, clamped to [-1, 1], as one channel of 16 bits."""
    codes_T = (wave_T.clamp(-1, 1) * 32767).round().to(torch.int16)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(codes_T.numpy().astype("<i2").tobytes())
    return content.getvalue()


def resample(wave_T: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """Resample a wave by cutting its spectrum, or padding it with zeros, so that nothing aliases."""
    if old_rate == new_rate:
        return wave_T
    common = math.gcd(old_rate, new_rate)
    blocks = -(-len(wave_T) * common // old_rate)  # of a whole number of samples at either rate
    old = blocks * old_rate // common
    new = blocks * new_rate // common
    if _largest_prime(old_rate // common) > _ROUGH:  # else 20 s of sound at 999,983 Hz would take half a minute
        old, new = _near(len(wave_T), old_rate, new_rate)
    spectrum = torch.fft.rfft(wave_T, n=old)
    length = resampled_length(len(wave_T), old_rate, new_rate)
    resampled_T: Tensor = torch.fft.irfft(spectrum, n=new)[:length]
    return resampled_T * (new_rate / old_rate)


def resampled_length(num_samples: int, old_rate: int, new_rate: int) -> int:
    """Return the number of samples that `resample` returns."""
    return num_samples if old_rate == new_rate else max(1, round(num_samples * new_rate / old_rate))


def _near(count: int, old_rate: int, new_rate: int) -> tuple[int, int]:
    """Return lengths at both rates, at least `count` at the old one: nearly equal in time, and quick to transform."""
    first = -(-count * new_rate // old_rate)
    pairs = [(round(new * old_rate / new_rate), new) for new in range(first + 1, first + 200)]
    quick = [pair for pair in pairs if _largest_prime(pair[0]) <= _ROUGH] or pairs
    return min(quick, key=lambda pair: abs(pair[1] * old_rate / new_rate - pair[0]))


def _largest_prime(number: int) -> int:
    largest = 1
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            largest, number = divisor, number // divisor
        divisor += 1
    return max(largest, number)


def _read(file: BufferedReader) -> Sound:
    """Decode an open file. Raises ImportError with the name of the coding where soundfile is needed and missing."""
    found = _find_samples(file)
    sound = _decode_by_soundfile(file, found) if isinstance(found, str) else _decode_plain(file, found)
    if not bool(torch.isfinite(sound.wave_T).all()):
        raise ValueError("it holds values that are not finite numbers")
    return sound


def _read_header(file: BufferedReader) -> SoundHeader:
    found = _find_samples(file)
    if not isinstance(found, str):
        return SoundHeader(found.rate, found.channels, found.num_samples)
    file.seek(0)
    rate, channels, num_samples = decode_header(file, found)
    _check_rate(rate, channels)
    _check_length(max(1, num_samples), channels)
    return SoundHeader(rate, channels, num_samples)


def _find_samples(file: BufferedReader) -> _PlainFormat | str:
    """Leave the file at its first sample and return their format; of a coding for soundfile, return its name."""
    head = file.read(12)
    if len(head) < 12:
        raise ValueError("it is cut short")
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return "this kind of file"
    form = b""
    for name, size in _chunks(file):
        if name == b"fmt ":
            form = file.read(size)
        elif name == b"data":
            return _plain_format(file, form, size)
    raise ValueError("it holds no sound")


def _chunks(file: BufferedReader) -> Iterator[tuple[bytes, int]]:
    """Yield names and sizes of a RIFF file's chunks; the unread rest of one is skipped. Chunks begin at even bytes."""
    for _ in range(_MOST_CHUNKS):
        if len(head := file.read(8)) < 8:
            return
        begin = file.tell()
        size = int.from_bytes(head[4:], "little")
        yield head[:4], size
        file.seek(begin + size + size % 2)
    raise ValueError(f"more than {_MOST_CHUNKS} chunks before its sound")


def _plain_format(file: BufferedReader, form: bytes, size: int) -> _PlainFormat | str:
    """Return the format of a data chunk of this size by the format chunk before it, or the name of a coding for
    soundfile.
    """
    if len(form) < 16:
        raise ValueError("it has no format chunk before its sound")
    coding, channels = (int.from_bytes(form[i : i + 2], "little") for i in (0, 2))
    rate, frame, bits = (int.from_bytes(form[i:j], "little") for i, j in ((4, 8), (12, 14), (14, 16)))
    if coding == _EXTENSIBLE and len(form) >= 26:
        coding = int.from_bytes(form[24:26], "little")  # the first bytes of its GUID
    _check_rate(rate, channels)
    there = os.fstat(file.fileno()).st_size - file.tell()
    cut = f"cut short: {there} bytes of sound, where its header promises {size}"
    if coding not in (_PCM, _FLOAT):
        if there < size < _OPEN_END:
            raise ValueError(cut)
        return f"coding {coding} of wav"
    width = frame // channels
    if frame % channels or width not in ((1, 2, 3, 4) if coding == _PCM else (4, 8)):
        raise ValueError(f"{8 * frame / channels:g} bits {'as floats ' if coding == _FLOAT else ''}at {rate} Hz")
    if bits > 8 * width:
        raise ValueError(f"{bits} bits per sample, but its header has room for {8 * width}")
    count = (there if size >= _OPEN_END else size) // frame
    if count * frame > there:
        raise ValueError(cut)
    _check_length(count, channels)
    return _PlainFormat(rate, channels, count, coding, width)


def _decode_plain(file: BufferedReader, form: _PlainFormat) -> Sound:
    wave_T = torch.empty(form.num_samples)
    for begin in range(0, form.num_samples, _BLOCK):
        block = file.read(min(_BLOCK, form.num_samples - begin) * form.width * form.channels)
        samples_TC = _numbers(block, form.width, form.coding).reshape(-1, form.channels)
        wave_T[begin : begin + len(samples_TC)] = torch.from_numpy(samples_TC.mean(1, dtype=np.float32))
    return Sound(wave_T, form.rate, form.channels)


def _decode_by_soundfile(file: BufferedReader, coding: str) -> Sound:
    file.seek(0)
    samples, rate, channels = decode_sound(file, coding, _check_length, _BLOCK)
    _check_rate(rate, channels)
    return Sound(torch.from_numpy(samples), rate, channels)


def _check_rate(rate: int, channels: int) -> None:
    if not channels or not _LOWEST_HZ <= rate <= _HIGHEST_HZ:
        raise ValueError(f"{channels} channels at {rate} Hz")


def _check_length(count: int, channels: int) -> None:
    """Raise ValueError for no samples at all, or more than one file may have."""
    if not count:
        raise ValueError("it holds no sound")
    if count > _MOST_SAMPLES or count * channels > _MOST_VALUES:
        raise ValueError(f"{count} samples in {channels} channels are too many, at most {_MOST_SAMPLES}; cut it up")


def _numbers(data: bytes, width: int, coding: int) -> NDArray[Any]:
    """Convert raw samples to float32 in [-1, 1]; integers of 8 bits are unsigned, wider ones signed."""
    if coding == _FLOAT:
        with np.errstate(over="ignore"):  # what becomes infinite is refused with what is
            return np.frombuffer(data, f"<f{width}").astype(np.float32)
    if width == 1:
        return np.frombuffer(data, np.uint8).astype(np.float32) / 128 - 1
    if width == 3:
        wide_N4 = np.zeros((len(data) // 3, 4), np.uint8)
        wide_N4[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data = wide_N4.tobytes()
        width = 4
    codes: NDArray[Any] = np.frombuffer(data, f"<i{width}")
    return (codes / 2.0 ** (8 * width - 1)).astype(np.float32)
