"""What Python gives a `Predictor`: paths, texts, pictures, arrays and rows, alone or in lists, as samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from io import IOBase
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bigmodel.errors import DataError
from bigmodel.formatting import first_line, truncate
from bigmodel.interfaces import ConvertsObjects, Processor

Found = tuple[str, "Tensor | DataError"]  # the input's name, and its sample or why there is none

_CHANNELS = (1, 3, 4)
_PATTERN = frozenset("*?[")
_SAID = 60  # characters of a text that names an input


def load_inputs(kind: Processor, given: object) -> Iterator[Found]:
    """Each input that `given` means, with its sample or the error that reading it raised.

    A `Path` is a file, a folder or a pattern. A `str` is the same where such a thing exists; else it is a text for the
    kinds that read texts. Lists and other iterables are gone through, one level deep; a pair (array, rate) is a sound.
    """
    if _is_many(given):
        assert isinstance(given, Iterable)
        for number, one in enumerate(given):
            yield from _samples_of_one(kind, one, f"[{number}]")
    else:
        yield from _samples_of_one(kind, given, "[0]")


def is_sound(value: object) -> TypeGuard[tuple[Any, int | float]]:
    """Whether it is a pair of samples and their rate."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and not isinstance(value[0], (str, bytes))
        and isinstance(value[1], (int, float, np.integer))
    )


def as_array(value: object) -> NDArray[Any] | None:
    """An array or tensor as an array on the CPU; None for anything else.

    Raises:
        DataError: it holds no real numbers, or none that this process can reach.
    """
    if isinstance(value, Tensor):
        try:
            dense = value.detach().to_dense().cpu().resolve_conj()
            array: NDArray[Any] = (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()
        except (RuntimeError, TypeError) as error:  # of another device or layout, without values, quantized, nested
            raise DataError(f"input: the tensor cannot be read: {truncate(first_line(error), 120)}") from error
        return array
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        raise DataError(f"input: an array holds real numbers, got {value.dtype}")
    return value if isinstance(value, np.ndarray) else None


def as_picture(value: object) -> Image.Image:
    """A picture of Pillow's, or one made of an array: (H, W), (H, W, C) or (C, H, W), whole numbers or 0 to 1.

    Where both could be the channels, an array has them last and a tensor first.

    Raises:
        DataError: it is neither, or has other shapes or values.
    """
    if isinstance(value, Image.Image):
        if not (value.width and value.height):
            raise DataError(f"input: a picture without pixels: {value.width} by {value.height}")
        return value
    array = as_array(value)
    if array is None:
        raise DataError(f"input: a {type(value).__name__} is no picture; give a file, a PIL picture or an array")
    if array.ndim == 3:
        first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
        if first and (isinstance(value, Tensor) or not last):
            array = np.moveaxis(array, 0, 2)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNELS) or not array.size:
        raise DataError(f"input: a picture is (H, W), (H, W, C) or (C, H, W) of 1, 3 or 4 channels, got {array.shape}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return Image.fromarray(np.ascontiguousarray(_levels(array)))


def _levels(array: NDArray[Any]) -> NDArray[Any]:
    """The values as uint8, or uint16 where the array is of that type."""
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer) and low >= 0 and high <= 255:
        return array.astype(np.uint8)
    raise DataError(
        f"input: a picture's values are 0 to 255 (whole numbers) or 0 to 1 (floats), got {array.dtype} from {low:g} to "
        f"{high:g}; scale them, before any normalization"
    )


def _is_many(given: object) -> bool:
    if isinstance(given, (str, bytes, Path, os.PathLike, Mapping, Image.Image, Tensor, np.ndarray, IOBase)) or is_sound(
        given
    ):
        return False
    return isinstance(given, Iterable)


def _samples_of_one(kind: Processor, one: object, name: str) -> Iterator[Found]:
    try:
        if isinstance(one, (str, os.PathLike)):
            yield from _named(kind, one)
            return
        for part, value in _parts(kind, one, name):
            if not isinstance(kind, ConvertsObjects):
                raise DataError(f"input: this model reads files or texts, not a {type(one).__name__}")
            yield part, _or_error(kind.convert, value)
    except DataError as error:
        yield (_short(one) if isinstance(one, (str, os.PathLike)) else name), error


def _named(kind: Processor, one: str | os.PathLike[str]) -> Iterator[Found]:
    reads_texts = bool(getattr(kind, "reads_texts", False))
    text = os.fspath(one)
    if text == "-":
        raise DataError("input: '-' is the standard input of bigmodel-predict; give what it would hold")
    if reads_texts:
        if os.path.isdir(text) and not isinstance(one, str):
            raise DataError(f"input: '{text}' is a folder; give the files in it")
        if not os.path.isfile(text):
            if not isinstance(one, str):
                raise DataError(f"input: there is no file '{text}'; a text is given as str")
            yield text, _or_error(kind.load, text)
            return
    for source in kind.list_inputs(text):
        yield source, _or_error(kind.load, source)


def _parts(kind: Processor, one: object, name: str) -> Iterator[tuple[str, object]]:
    """The value itself, or the members of a batch: an array of one dimension more than the kind's samples have."""
    dimensions = getattr(kind, "array_dimensions", None)
    if dimensions is not None and isinstance(one, (Tensor, np.ndarray)) and one.ndim == dimensions + 1:
        for number, value in enumerate(one):
            yield f"{name}[{number}]", value
    else:
        yield name, one


def _or_error(read: Any, value: Any) -> Tensor | DataError:
    try:
        sample: Tensor = read(value)
        return sample
    except DataError as error:
        return error


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SAID else text[: _SAID - 3] + "..."
