"""Decode picture files with Pillow, and check what a dataset claims of their shapes and labels."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Sequence
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

from bigmodel.datasets.images.pixels import AS_BEFORE, PixelRules
from bigmodel.datasets.loading.claims import wrong_claims
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import first_line, format_count
from bigmodel.runtime.exhaustion import describe_exhaustion
from bigmodel.safe_files import open_regular

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


def check_labels(path: Path, labels: NDArray[Any], first: int, num_classes: int) -> None:
    """Raise DataError unless every label is a class index; `first` is the index in the file of the first label."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        number = first + wrong[0]
        label = labels[wrong[0]]
        raise DataError(f"{path}: image {number} has label {label}, outside of 0 to {num_classes - 1}; get it again")


def check_shape(given: Sequence[int], actual: tuple[int, ...]) -> None:
    """Raise ConfigError unless the configured input shape is the data's."""
    if problems := wrong_claims({"input_shape": given}, {"input_shape": actual}, "leave it out"):
        raise ConfigError(*problems)


def check_channels(input_shape: Sequence[int]) -> None:
    """Raise ValueError unless pictures can be resized to this shape."""
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise ValueError(f"input_shape: needs 1 (grey) or 3 (RGB) channels, height and width, not {list(input_shape)}")


@dataclass(frozen=True)
class PictureFiles:
    """A split whose pixels are decoded on demand from one picture file a sample. An `ImageSource`."""

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
        else:  # other workers use the other cores
            for position in range(len(chosen)):
                decode(position)
        if problems:
            rest = len(problems) - _SHOWN
            more = [f"and {format_count(rest, 'more broken picture')}"] if rest > 0 else []
            raise DataError(*sorted(problems)[:_SHOWN], *more)
        return torch.from_numpy(pixels_NCHW)


def open_image(path: str | os.PathLike[str], input_shape: Sequence[int], rules: PixelRules = AS_BEFORE) -> Tensor:
    """Decode a picture as uint8 (C, H, W): upright, RGB or grey, resized by the shorter side, cut at the center.

    Raises:
        DataError: there is no such file, or it is no picture that can be decoded.
    """
    channels, height, width = input_shape
    try:
        with open_regular(path) as file, Image.open(file, formats=readable_formats()) as image:
            image.draft("L" if channels == 1 else "RGB", draft_size(height, width))
            return fit_picture(image, input_shape, rules)
    except Exception as error:  # PIL's decoders raise nearly anything on damaged files
        if describe_exhaustion(error):
            raise
        what = f"not a readable picture ({pillow_reason(error)})"
        raise DataError(f"{Path(path).absolute()}: {what}; mend or remove it") from error


def draft_size(height: int, width: int) -> tuple[int, int]:
    """Width and height that a JPEG is decoded to at least, at a half, quarter or eighth of its size: no larger is of
    use for a picture of `height` and `width`.
    """
    return 2 * width, 2 * height


def fit_picture(image: Image.Image, input_shape: Sequence[int], rules: PixelRules = AS_BEFORE) -> Tensor:
    """Convert an open picture to uint8 (C, H, W), as `open_image` does a file; raises whatever Pillow raises."""
    channels, height, width = input_shape
    upright = ImageOps.exif_transpose(image)
    fitted = ImageOps.fit(rules.converted(upright, channels, image), (width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted, dtype=np.uint8).reshape(height, width, channels)).permute(2, 0, 1)


@cache
def readable_formats() -> tuple[str, ...]:
    """Formats that this Pillow can read, usual ones first; the last two cannot be recognized by a file's content."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def pillow_reason(error: Exception) -> str:
    """Pillow's message about a file, without the file's name."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return re.sub(r"^cannot identify image file .*", "of no format that Pillow knows", text)
