"""Decode FLAC, Ogg, MP3 and other formats of libsndfile, through the optional package soundfile."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

CODED = frozenset({".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus"})
_OPEN_END = 0x7FFFFF00  # bytes from which on a header's size means that it was written to a pipe
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_MOST_FRAMES = 1 << 20  # of an MP3 file that are gone through: 7 hours
_KBIT = {  # of MP3 by version (True: 1) and layer
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_DELAY = 8 * 1152  # samples that an encoder of MP3 adds at most, and a decoder takes away
_HZ = (44100, 48000, 32000)
_ENDLESS = "it does not say how long it is, as what was written to a pipe; write it to a file"
_UNKNOWN = (1 << 63) - 1  # the frames of a stream; libsndfile cannot go on after the first block of one


def decode_sound(
    file: BinaryIO, coding: str, hold: Callable[[int, int], None], block: int
) -> tuple[NDArray[np.float32], int, int]:
    """Decode a sound file: float32 (T), the mean of its channels, with its rate and the number of channels.

    `hold(samples, channels)` is called before and while they are decoded, and raises ValueError to refuse them: a
    header need not be true.

    Raises:
        ImportError: soundfile is not installed; the text is `coding`.
        ValueError: the file is no sound that libsndfile reads, is cut short, or `hold` refuses it.
    """
    soundfile, known = _soundfile_for(file, coding)
    parts: list[NDArray[Any]] = []
    try:
        with soundfile.SoundFile(file) as sound:
            rate = int(sound.samplerate)
            channels = int(sound.channels)
            if sound.frames >= _UNKNOWN:
                raise ValueError(_ENDLESS)
            hold(max(1, sound.frames), channels)
            count = 0
            while len(samples_TC := sound.read(block, dtype="float32", always_2d=True)):
                count += len(samples_TC)
                hold(count, channels)
                parts.append(samples_TC.mean(1, dtype=np.float32))
            hold(count, channels)
            if count < known - _DELAY:
                raise ValueError(f"libsndfile reads {count:,} of its {known:,} samples; convert it to flac or wav")
            if count < sound.frames and sound.format != "MP3":  # an MP3 header's length may be an estimate
                raise ValueError(f"cut short: {count:,} samples, where its header promises {sound.frames:,}")
    except soundfile.SoundFileError as error:
        raise ValueError(str(error).partition(": ")[2] or str(error)) from error
    return np.concatenate(parts), rate, channels


def decode_header(file: BinaryIO, coding: str) -> tuple[int, int, int]:
    """Return the rate, channels and samples a channel that a sound file's header states; of an MP3 file an estimate.

    Raises:
        ImportError, ValueError: as `decode_sound`, as far as the header shows it.
    """
    soundfile, _ = _soundfile_for(file, coding)
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.frames >= _UNKNOWN:
                raise ValueError(_ENDLESS)
            return int(sound.samplerate), int(sound.channels), int(sound.frames)
    except soundfile.SoundFileError as error:
        raise ValueError(str(error).partition(": ")[2] or str(error)) from error


def _soundfile_for(file: BinaryIO, coding: str) -> tuple[Any, int]:
    """Return the package, and how many samples the file has at least, once it is known not to be cut short."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: without its library
        raise ImportError(coding) from error
    end, known = cut_short(file)
    if end is not None:
        raise ValueError(end if end.startswith("damaged") else f"cut short: {end}")
    return soundfile, known


def cut_short(file: BinaryIO) -> tuple[str | None, int]:
    """Find whether a file is truncated: the reason or None, and the least number of samples, 0 if unknown.

    The file is left at its start. libsndfile decodes the rest of a truncated file without an error. FLAC, AIFF and AU
    state their length, pages of Ogg have check sums and numbers and the last is marked, and MP3 has frames of known
    lengths, and often their number in the first. MP3 without that, cut exactly between two frames, cannot be
    distinguished from a shorter sound.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    head = file.read(12)
    found = None
    known = 0
    if head[:4] == b"OggS":
        found = _cut_ogg(file, size)
    elif head[:4] == b"FORM":
        found = _describe_missing_bytes(8 + int.from_bytes(head[4:8], "big"), size)
    elif head[:4] == b".snd" and head[8:12] != b"\xff" * 4:
        found = _describe_missing_bytes(int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:12], "big"), size)
    elif head[:3] == b"ID3" or _frame_of_mp3(head[:4]) is not None:
        found, known = _cut_mp3(file, size, head)
    file.seek(0)
    return found, known


def _describe_missing_bytes(expected: int, size: int) -> str | None:
    if size >= expected or expected >= _OPEN_END:
        return None
    return f"{size:,} bytes, where its header promises {expected:,}"


def _cut_ogg(file: BinaryIO, size: int) -> str | None:
    """Go through all pages: each has a check sum and a number, and the last is marked."""
    place = 0
    last = b""
    numbers: dict[bytes, int] = {}  # of the next page, by stream
    while place < size:
        file.seek(place)
        head = file.read(27)
        if head[:4] != b"OggS":
            return f"damaged at byte {place:,}" if place else None
        sizes = file.read(head[26]) if len(head) == 27 else b""
        page = head + sizes + file.read(sum(sizes))
        if len(head) < 27 or len(page) < 27 + head[26] + sum(sizes):
            return "its last page is not whole"
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if _ogg_sum(page) != int.from_bytes(head[22:26], "little") or numbers.get(stream, number) != number:
            return f"damaged at byte {place:,}"
        numbers[stream] = number + 1
        place += len(page)
        last = page
    return None if last[5] & 4 else "its last page is not marked as the last"


def _ogg_sum(page: bytes) -> int:
    """Return the check sum of a page: CRC-32 as zlib's, but of bits in the other order and without its inversions."""
    bits = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    return int(f"{zlib.crc32(bits, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)


def _frame_of_mp3(head: bytes) -> tuple[int, int, int] | None:
    """Bytes and samples of a frame of MPEG audio, by its header, and where in it the number of all may stand."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate = head[2] >> 2 & 3
    padding = head[2] >> 1 & 1
    if version == 1 or layer == 4 or rate == 3 or head[2] >> 4 in (0, 15):
        return None
    bits = 1000 * _KBIT[version == 3, layer][head[2] >> 4]
    hertz = _HZ[rate] // {3: 1, 2: 2, 0: 4}[version]
    mono = head[3] >> 6 == 3
    if layer == 1:
        return 4 * (12 * bits // hertz + padding), 384, 0
    samples = 576 if layer == 3 and version != 3 else 1152
    return (
        samples // 8 * bits // hertz + padding,
        samples,
        4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17)),
    )


def _cut_mp3(file: BinaryIO, size: int, head: bytes) -> tuple[str | None, int]:
    place = 0
    if head[:3] == b"ID3":  # seven bits a byte
        place = 10 + sum((byte & 127) << 7 * (3 - n) for n, byte in enumerate(head[6:10])) + (10 if head[5] & 16 else 0)
    first = place
    known = 0
    frames = promised_frames = 0
    for _ in range(_MOST_FRAMES):
        file.seek(place)
        frame = _frame_of_mp3(file.read(4))
        if frame is None:
            break  # the end, tags behind the sound, or what only a decoder can read
        length, samples, offset = frame
        if place == first and offset:
            promised, promised_frames = _length_of_mp3(file, first, offset)
            if size - first < promised:
                return f"{size - first:,} bytes of sound, where its header promises {promised:,}", 0
        frames += 1
        place += length
        if place > size:
            return "its last frame is not whole", 0
        known += samples
    if frames < min(promised_frames, _MOST_FRAMES):  # which do not count the first, or do
        return f"{frames:,} whole frames up to byte {place:,}, where its header promises {promised_frames:,}", 0
    return None, known


def _length_of_mp3(file: BinaryIO, first: int, offset: int) -> tuple[int, int]:
    """Return the bytes and the number of all frames, as the first of them tells where it is one of LAME's or
    Fraunhofer's; else 0.
    """
    file.seek(first + offset)
    found = file.read(16)
    if found[:4] in (b"Xing", b"Info") and len(found) == 16:
        has_frames, has_bytes = found[7] & 1, found[7] & 2
        begin = 12 if has_frames else 8
        return (
            int.from_bytes(found[begin : begin + 4], "big") if has_bytes else 0,
            int.from_bytes(found[8:12], "big") if has_frames else 0,
        )
    file.seek(first + 36)
    found = file.read(18)
    if found[:4] != b"VBRI":
        return 0, 0
    return int.from_bytes(found[10:14], "big"), int.from_bytes(found[14:18], "big")
