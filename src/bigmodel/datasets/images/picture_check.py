"""Inspect picture files before training: find broken ones, and ones of more than 8 bits.

The headers of all files are read, with cheap signs of truncation; a few files are decoded as in training.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
from PIL import Image

from bigmodel.datasets.images.picture_files import open_image, pillow_reason, readable_formats
from bigmodel.datasets.images.pixels import Background, PixelRules, is_deep, values_of
from bigmodel.errors import DataError
from bigmodel.formatting import format_count
from bigmodel.runtime.exhaustion import describe_exhaustion

LOOKED_AT = 50_000  # headers; of more files an evenly spaced sample
_CHEAP_BYTES = 4 << 20  # bytes of a file that is read whole only to find damage
_SHOWN = 10  # broken files in one report
_DECODED, _DECODED_PIXELS = 256, 1e8  # pictures that are decoded as in training, and pixels in all of them
_MEASURED, _MEASURED_PIXELS = 2_000, 5e8  # deep pictures whose values are measured
_OUTLIER = 0.06  # of the value range: pictures that stay below this are nearly black
_DARK = 15  # of 255: the same of pictures with 8 bits
_BITS = (8, 10, 12, 14, 16)
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_MANY_FRAMES = ("GIF", "TIFF", "WEBP", "PNG")


@dataclass(frozen=True)
class PictureHeader:
    """Header of a picture file: the problem, if there is one, else the mode, and whether it has one frame."""

    problem: str | None = None
    mode: str = ""
    deep_colour: bool = False  # more than 8 bits in each of several channels, of which Pillow reads the upper 8
    frames: int = 1
    pixels: int = 0
    transparent: bool = False  # has an alpha channel or a transparent colour


@cache
def readable_suffixes() -> frozenset[str]:
    """Suffixes of all readable files, in lower case."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, form in known.items() if form in {*readable_formats(), "MPO"})


def is_picture(path: str) -> bool:
    """Return whether a file's content begins like a picture, whatever its name."""
    try:
        with Image.open(path, formats=readable_formats()[:-2]):
            return True
    except Exception:  # Pillow raises nearly anything
        return False


def read_header(path: str) -> PictureHeader:
    """Inspect one file; costs about 0.1 ms, more for formats whose damage only decoding shows."""
    try:
        found = os.stat(path)
    except OSError as error:
        return PictureHeader(
            "a link to no file" if os.path.islink(path) else f"cannot be read ({error.strerror or error})"
        )
    if not stat.S_ISREG(found.st_mode):
        return PictureHeader("is not a regular file")
    return _header(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=1 << 17)  # several runs of one process look once
def _header(path: str, size: int, modified: int, inode: int) -> PictureHeader:
    if not size:
        return PictureHeader("is empty")
    try:
        with Image.open(path, formats=readable_formats()) as image:
            # Pillow says of the raw mode only where the tiles lie
            deep_colour = any(";16" in str(tile[3]) and not is_deep(image.mode) for tile in getattr(image, "tile", ()))
            mode, form = image.mode, image.format
            frames = getattr(image, "n_frames", 1) if form in _MANY_FRAMES else 1
            pixels, alpha = image.width * image.height, image.has_transparency_data
            if form in _ENDS and size > _CHEAP_BYTES:
                _decode_unless_ended(image, path)
            elif form == "PNG":
                image.verify()  # the check sums of all chunks
            elif form == "JPEG":
                _decode_unless_ended(image, path)
            elif size <= _CHEAP_BYTES:
                image.load()
        return PictureHeader(None, mode, deep_colour, frames, pixels, alpha)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        if describe_exhaustion(error):
            raise
        return PictureHeader(f"not a readable picture ({pillow_reason(error)})")


def _decode_unless_ended(image: Image.Image, path: str) -> None:
    """A file with its last mark was not cut off; one without it may still be fine, as some programs append to it."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 1024))
        ended = _ENDS[str(image.format)] in file.read()
    if not ended:
        image.draft("RGB", (64, 64))
        image.load()


def find_broken(paths: Sequence[str], decode: bool = False) -> dict[str, str]:
    """Problems of broken files by path. With `decode` every file is decoded once."""
    chosen = take_evenly(paths, len(paths) if decode else LOOKED_AT)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        problems = {path: h.problem for path, h in zip(chosen, pool.map(read_header, chosen), strict=True) if h.problem}
        if decode:
            sound = [path for path in chosen if path not in problems]
            problems |= {p: line for p, line in zip(sound, pool.map(_undecodable, sound), strict=True) if line}
    return {path: problems[path] for path in paths if path in problems}


def _undecodable(path: str) -> str | None:
    try:
        open_image(path, (3, 8, 8))
    except DataError as error:
        return str(error).partition(": ")[2].removesuffix("; mend or remove it")
    return None


def take_evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most `count` items, evenly spaced, in order."""
    return [items[number * len(items) // most] for number in range(most)] if len(items) > most else list(items)


def _few(paths: Sequence[str], most: int, pixels: float) -> list[str]:
    """At most `most` pictures, evenly spaced; fewer if they are large, but eight at least."""
    few = take_evenly(paths, most)
    mean = sum(read_header(path).pixels for path in few) / max(1, len(few))
    return take_evenly(few, max(8, int(pixels / max(1.0, mean))))


def resolve_value_range(
    wanted: Literal["auto", "type"] | Sequence[float] | None, background: Background, training: Sequence[str]
) -> tuple[Literal["type"] | list[float] | None, list[str]]:
    """Return the value range for pictures of more than 8 bits, and lines on what is lost. "auto" measures the training
    pictures: whole numbers have the fewest usual bits that hold them, floats are 0 to 1, -1 to 1, or 0 to 255, or as
    measured.
    """
    found = {path: read_header(path) for path in take_evenly(training, LOOKED_AT)}
    notes = _describe_losses(found, background)
    deep = [path for path, h in found.items() if is_deep(h.mode)]
    explicit = None if wanted in ("auto", None) else wanted
    if not deep:
        return ("type" if wanted == "auto" else explicit), notes  # type: ignore[return-value]
    count = f"{len(deep):,} of {format_count(len(found), 'training picture')} with more than 8 bits"
    if wanted is None:
        return None, [*notes, f"warning: {count}, and dataset.value_range=null reads them as older versions did"]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        chosen_ones = _few(deep, _MEASURED, _MEASURED_PIXELS)
        measured = [values for values in pool.map(_extremes, chosen_ones) if values is not None]
    low = min((m[0] for m in measured), default=0.0)
    high = max((m[1] for m in measured), default=1.0)
    whole = all(m[2] for m in measured)
    if explicit is not None:
        line = f"{count}, values {low:g} to {high:g}, read by dataset.value_range={explicit}"
        return explicit, [*notes, line]  # type: ignore[return-value]
    chosen = _usual_range(low, high, whole)
    tops = sorted(m[1] for m in measured)
    usual = tops[len(tops) // 2] if tops else high
    if usual - chosen[0] < _OUTLIER * (chosen[1] - chosen[0]):
        notes.append(
            f"warning: half of the pictures with more than 8 bits have no value above {usual:g}, and {chosen[1]:g} is "
            f"white: they are nearly black; set dataset.value_range=[{low:g},{usual:g}]"
        )
    line = f"{count}, values {low:g} to {high:g}: {chosen[0]:g} is black, {chosen[1]:g} white; set dataset.value_range"
    return chosen, [*notes, f"{line}=[low,high] for other values"]


def _describe_losses(found: Mapping[str, PictureHeader], background: Background) -> list[str]:
    deep = [path for path, h in found.items() if h.deep_colour]
    frames = [path for path, h in found.items() if h.frames > 1]
    alpha = [path for path, h in found.items() if h.transparent]
    only_8 = "more than 8 bits in each of several channels, of which only the upper 8 are read"
    lost = {only_8: deep, "several frames, of which the first is read": frames}
    lines = [f"warning: {format_count(len(p), 'picture')} with {what}, as {p[0]}" for what, p in lost.items() if p]
    if alpha:
        count = f"{len(alpha):,} of {format_count(len(found), 'training picture')} can be transparent"
        hidden = f"warning: {count}, and dataset.background=null shows their hidden colors"
        lines.append(hidden if background is None else f"{count}: dataset.background={background} shows behind them")
    return lines


def _extremes(path: str) -> tuple[float, float, bool] | None:
    """Smallest and largest finite value, and whether they are whole numbers by their type; None of a broken picture."""
    try:
        with Image.open(path, formats=readable_formats()) as image:
            values = values_of(image)
            whole = image.mode != "F"
    except Exception as error:  # told as broken elsewhere
        if describe_exhaustion(error):
            raise
        return None
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max()), whole) if finite.size else None


def _usual_range(low: float, high: float, whole: bool) -> list[float]:
    if whole:
        usual = [(0.0, float(2**bits - 1)) for bits in _BITS]
    else:
        usual = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]
    fitting = next(([first, last] for first, last in usual if first <= low and high <= last), None)
    return fitting or ([low, high] if low < high else [low, math.nextafter(low + 1, math.inf)])


def warn_uniform_pictures(
    splits: Mapping[str, tuple[Sequence[str], Sequence[int]]],
    classes: Sequence[str],
    input_shape: Sequence[int],
    rules: PixelRules,
) -> list[str]:
    """Return warnings about pictures, of a few that are decoded, that are of one colour, or the same in several
    classes.

    Raises:
        DataError: some of these cannot be decoded.
    """
    label_of = {path: label for paths, labels in splits.values() for path, label in zip(paths, labels, strict=True)}
    flat: list[str] = []
    brightest = 0
    problems: list[str] = []
    same: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    chosen = _few(list(label_of), _DECODED, _DECODED_PIXELS)

    def decode(path: str) -> tuple[int, int, bytes] | DataError:
        try:
            pixels = open_image(path, input_shape, rules).numpy()
        except DataError as error:
            return error
        digest = hashlib.md5(pixels.tobytes(), usedforsecurity=False).digest()
        return int(pixels.min()), int(pixels.max()), digest

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for path, found in zip(chosen, pool.map(decode, chosen), strict=True):
            if isinstance(found, DataError):
                problems += found.lines
                continue
            darkest, lightest, digest = found
            flat += [path] if darkest == lightest else []
            brightest = max(brightest, lightest)
            same[digest].append((path, label_of[path]))
    if problems:
        raise DataError(*problems[:_SHOWN])
    lines = _warn_repeated(splits, classes)
    looked = f"of {format_count(len(chosen), 'picture')} looked at"
    if flat:
        lines.append(f"warning: of one colour once decoded: {len(flat):,} {looked}, as {flat[0]}")
    if 0 < brightest <= _DARK:
        lines.append(
            f"warning: no value {looked} is above {brightest} of 255: they are nearly black; save them with values up "
            "to 255 (those of more than 8 bits: set dataset.value_range=[low,high]), or set dataset.mean and "
            "dataset.std to theirs, as parts of 255"
        )
    crossing = [group for group in same.values() if len({label for _, label in group}) > 1]
    if crossing:
        path, label = crossing[0][0]
        other = next(pair for pair in crossing[0] if pair[1] != label)
        lines.append(
            f"warning: {sum(map(len, crossing)):,} {looked} are the same as one of another class once decoded, as "
            f"{path} ({classes[label]}) and {other[0]} ({classes[other[1]]})"
        )
    return lines


def _warn_repeated(splits: Mapping[str, tuple[Sequence[str], Sequence[int]]], classes: Sequence[str]) -> list[str]:
    """Return warnings about files that lie in several splits or classes, by links or by name."""
    places: dict[tuple[int, int], list[tuple[str, str, int]]] = defaultdict(list)
    for split, (paths, labels) in splits.items():
        for path, label in zip(paths, labels, strict=True):
            found = os.stat(path)
            places[found.st_dev, found.st_ino].append((path, split, label))
    several = [group for group in places.values() if len(group) > 1]
    lines = []
    crossing = [group for group in several if len({split for _, split, _ in group}) > 1]
    if crossing:
        names = " and ".join(sorted({split for group in crossing for _, split, _ in group}))
        lines.append(f"warning: {format_count(len(crossing), 'file')} in {names} at once, as {crossing[0][0][0]}")
    two = [group for group in several if len({label for _, _, label in group}) > 1]
    if two:
        kinds = " and ".join(classes[label] for label in sorted({label for _, _, label in two[0]}))
        lines.append(f"warning: {format_count(len(two), 'file')} with several classes, as {two[0][0][0]} ({kinds})")
    return lines
