"""Files that datasets are read from: those that authors publish, under known hashes, and pictures of any kind."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from bigmodel.archive import opened
from bigmodel.datasets.pixels import AS_BEFORE, PixelRules
from bigmodel.durable import open_regular
from bigmodel.errors import DataError
from bigmodel.words import first_line

_FORMATS = (  # of Pillow's; not among them are those that run other programs (EPS) or need libraries of their own
    *("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000", "BLP", "CUR", "DCX", "DDS", "FITS"),
    *(
        "FLI",
        "FTEX",
        "ICNS",
        "ICO",
        "IM",
        "MSP",
        "PCX",
        "PIXAR",
        "PSD",
        "QOI",
        "SGI",
        "SUN",
        "XBM",
        "XPM",
        "PCD",
        "TGA",
    ),
)
_SHOWN = 10  # broken files in one report
_GZIP_RATIO = 1032  # deflate cannot do better


@dataclass(frozen=True)
class Published:
    """A file as its authors publish it; `md5` None where they publish none. Without a size, only that file will do."""

    name: str
    md5: str | None
    size: int | None = None

    def find(self, folder: Path) -> Path | None:
        """The file in this folder, plain or gzipped."""
        candidates = (folder / self.name, folder / f"{self.name}.gz")
        return next((path for path in candidates if path.is_file()), None)

    def blocks(self, path: Path, block_bytes: int) -> Iterator[bytes]:
        """The content, decompressed, a block at a time; every block but the last is full.

        Raises:
            DataError: the file is damaged, or has the published size (or none is known) but not the published hash.
        """
        state, size = hashlib.md5(usedforsecurity=False), 0
        with opened(path) as file:
            while block := file.read(block_bytes):
                state.update(block)
                size += len(block)
                yield block
        if self.md5 is not None and self.size in (None, size) and state.hexdigest() != self.md5:
            raise DataError(
                f"{path.absolute()}: damaged: its md5 is {state.hexdigest()}, the published one {self.md5}; "
                "delete it and get it again"
            )

    def verify(self, path: Path) -> None:
        """Read it once for the hash alone; DataError as in `blocks`."""
        for _ in self.blocks(path, 1 << 20):
            pass


def check_size(path: Path, expected: int) -> None:
    """DataError unless the file can hold this many bytes; what a gzipped one really holds shows when it is read."""
    size = path.stat().st_size
    if expected > size * _GZIP_RATIO if path.suffix == ".gz" else expected != size:
        raise DataError(f"{path.absolute()}: {size} bytes, where its header promises {expected}; get it again")


def check_labels(path: Path, labels: NDArray[Any], first: int, num_classes: int) -> None:
    """DataError unless every label is one of a class; `first` is the number in the file of the first one."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        number, label = first + wrong[0], labels[wrong[0]]
        raise DataError(f"{path}: image {number} has label {label}, outside of 0 to {num_classes - 1}; get it again")


def check_shape(given: Sequence[int], actual: tuple[int, ...]) -> None:
    """ValueError unless the configured input shape is the data's."""
    if tuple(given) != actual:
        raise ValueError(f"input_shape: the images are {'x'.join(map(str, actual))}, not {'x'.join(map(str, given))}")


def check_channels(input_shape: Sequence[int]) -> None:
    """ValueError unless pictures can be brought to this shape."""
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise ValueError(f"input_shape: needs 1 (grey) or 3 (RGB) channels, height and width, not {list(input_shape)}")


def fingerprint(entries: Iterable[tuple[str, int]]) -> str:
    """A short text that changes with the names and sizes of a data set's files."""
    state = hashlib.md5(usedforsecurity=False)
    for name, size in entries:
        state.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return f"md5:{state.hexdigest()}"


@dataclass(frozen=True)
class ImageFiles:
    """A split whose pixels are decoded on demand from one picture file a sample. A `Source`."""

    paths: Sequence[str]
    labels_N: Tensor
    input_shape: Sequence[int]
    rules: PixelRules = AS_BEFORE

    def pixels(self, indices: Tensor | None = None) -> Tensor:
        """uint8 (N, C, H, W).

        Raises:
            DataError: pictures cannot be decoded; the message names the first few of these files.
        """
        chosen = range(len(self.paths)) if indices is None else indices.tolist()
        pixels_NCHW = np.empty((len(chosen), *self.input_shape), dtype=np.uint8)  # threads know no inference mode
        problems: list[str] = []

        def decode(position: int) -> None:
            try:
                image = open_image(self.paths[chosen[position]], self.input_shape, self.rules)
            except DataError as error:
                problems.extend(error.lines)
            else:
                pixels_NCHW[position] = image.numpy()

        if multiprocessing.parent_process() is None and len(chosen) > 1:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                list(pool.map(decode, range(len(chosen))))
        else:  # in a worker the other cores are taken by other workers
            for position in range(len(chosen)):
                decode(position)
        if problems:
            more = [f"and {len(problems) - _SHOWN:,} more broken pictures"] if len(problems) > _SHOWN else []
            raise DataError(*sorted(problems)[:_SHOWN], *more)
        return torch.from_numpy(pixels_NCHW)


def open_image(path: str | os.PathLike[str], input_shape: Sequence[int], rules: PixelRules = AS_BEFORE) -> Tensor:
    """uint8 (C, H, W): turned upright, in RGB or grey, the shorter side resized to fit, then cut out at the centre.

    Raises:
        DataError: there is no such file, or it is no picture that can be decoded.
    """
    channels, height, width = input_shape
    try:
        with open_regular(path) as file, Image.open(file, formats=formats()) as image:
            image.draft("L" if channels == 1 else "RGB", draft_size(height, width))
            return fit_picture(image, input_shape, rules)
    except MemoryError:
        raise
    except Exception as error:  # PIL's decoders raise nearly anything on damaged files
        what = f"not a readable picture ({reason(error)})"
        raise DataError(f"{Path(path).absolute()}: {what}; mend or remove it") from error


def draft_size(height: int, width: int) -> tuple[int, int]:
    """Width and height that a JPEG is decoded to at least, at a half, quarter or eighth of its size: no larger is of
    use for a picture of `height` and `width`.
    """
    return 2 * width, 2 * height


def fit_picture(image: Image.Image, input_shape: Sequence[int], rules: PixelRules = AS_BEFORE) -> Tensor:
    """uint8 (C, H, W) of an open picture, as `open_image` makes it of a file; raises whatever Pillow raises."""
    channels, height, width = input_shape
    upright = ImageOps.exif_transpose(image)
    fitted = ImageOps.fit(rules.converted(upright, channels, image), (width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted, dtype=np.uint8).reshape(height, width, channels)).permute(2, 0, 1)


@cache
def formats() -> tuple[str, ...]:
    """What this Pillow can read, the usual ones first; the last two have nothing in a file that tells them."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def reason(error: Exception) -> str:
    """What Pillow says of a file, without the file's name."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return re.sub(r"^cannot identify image file .*", "of no format that Pillow knows", text)
