"""Load the inputs of `Predictor.predict`: paths, texts, pictures, arrays and rows, alone or in lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
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

LoadedInput = tuple[str, "Tensor | DataError"]  # the input's name, and its sample or the error

_CHANNELS = (1, 3, 4)
_MAX_NAME = 60  # characters of a text that names an input


def load_inputs(processor: Processor, inputs: object) -> Iterator[LoadedInput]:
    """Yield each input's name with its sample, or with the error that loading it raised.

    - A `Path` is a file, a folder or a pattern.
    - A `str` is the same where such a path exists; else it is a text, for processors that read texts.
    - A pair (array, rate) is a sound.
    - Lists and other iterables are iterated, one level deep.
    """
    if _is_collection(inputs):
        assert isinstance(inputs, Iterable)
        for index, value in enumerate(inputs):
            yield from _load_one(processor, value, f"[{index}]")
    else:
        yield from _load_one(processor, inputs, "[0]")


def is_sound(value: object) -> TypeGuard[tuple[Any, int | float]]:
    """Return whether a value is a pair of samples and their rate."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and not isinstance(value[0], (str, bytes))
        and isinstance(value[1], (int, float, np.integer))
    )


def as_array(value: object) -> NDArray[Any] | None:
    """Return an array or tensor as an array on the CPU; None for anything else.

    Raises:
        DataError: the values are not real numbers, or this process cannot reach them.
    """
    if isinstance(value, Tensor):
        try:
            dense = value.detach().to_dense().cpu().resolve_conj()
            array: NDArray[Any] = (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()
        except (RuntimeError, TypeError) as error:  # other device or layout, meta, quantized or nested
            raise DataError(f"input: the tensor cannot be read: {truncate(first_line(error), 120)}") from error
        return array
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        raise DataError(f"input: an array holds real numbers, got {value.dtype}")
    return value if isinstance(value, np.ndarray) else None


def as_picture(value: object) -> Image.Image:
    """Return a Pillow picture, or convert an array: (H, W), (H, W, C) or (C, H, W), whole numbers or [0, 1].

    Where the first and the last dimension could be channels, an array has them last and a tensor first.

    Raises:
        DataError: the value is neither, or has another shape or range.
    """
    if isinstance(value, Image.Image):
        if not (value.width and value.height):
            raise DataError(f"input: a picture without pixels: {value.width} by {value.height}")
        return value
    array = as_array(value)
    if array is None:
        raise DataError(f"input: a {type(value).__name__} is not a picture; give a file, a PIL picture or an array")
    if array.ndim == 3:
        channels_first = array.shape[0] in _CHANNELS
        channels_last = array.shape[2] in _CHANNELS
        if channels_first and (isinstance(value, Tensor) or not channels_last):
            array = np.moveaxis(array, 0, 2)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNELS) or not array.size:
        raise DataError(f"input: a picture is (H, W), (H, W, C) or (C, H, W) of 1, 3 or 4 channels, got {array.shape}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return Image.fromarray(np.ascontiguousarray(_to_pixels(array)))


def _to_pixels(array: NDArray[Any]) -> NDArray[Any]:
    """Convert values to uint8; uint16 arrays stay as they are."""
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


def _is_collection(inputs: object) -> bool:
    single = (str, bytes, Path, os.PathLike, Mapping, Image.Image, Tensor, np.ndarray, IOBase)
    return isinstance(inputs, Iterable) and not isinstance(inputs, single) and not is_sound(inputs)


def _load_one(processor: Processor, value: object, name: str) -> Iterator[LoadedInput]:
    try:
        if isinstance(value, (str, os.PathLike)):
            yield from _load_path_or_text(processor, value)
            return
        for item_name, item in _split_batch(processor, value, name):
            if not isinstance(processor, ConvertsObjects):
                raise DataError(f"input: this model reads files or texts, not a {type(value).__name__}")
            yield item_name, _call_or_error(processor.convert, item)
    except DataError as error:
        yield (_shorten(value) if isinstance(value, (str, os.PathLike)) else name), error


def _load_path_or_text(processor: Processor, value: str | os.PathLike[str]) -> Iterator[LoadedInput]:
    reads_texts = bool(getattr(processor, "reads_texts", False))
    text = os.fspath(value)
    if text == "-":
        raise DataError("input: '-' is the standard input of bigmodel-predict; give its content instead")
    if reads_texts:
        if os.path.isdir(text) and not isinstance(value, str):
            raise DataError(f"input: '{text}' is a folder; give the files in it")
        if not os.path.isfile(text):
            if not isinstance(value, str):
                raise DataError(f"input: there is no file '{text}'; give a text as str")
            yield text, _call_or_error(processor.load, text)
            return
    for source in processor.list_inputs(text):
        yield source, _call_or_error(processor.load, source)


def _split_batch(processor: Processor, value: object, name: str) -> Iterator[tuple[str, object]]:
    """Yield the members of a batch, an array with one dimension more than a sample; yield any other value itself."""
    dimensions = getattr(processor, "array_dimensions", None)
    if dimensions is not None and isinstance(value, (Tensor, np.ndarray)) and value.ndim == dimensions + 1:
        for index, member in enumerate(value):
            yield f"{name}[{index}]", member
    else:
        yield name, value


def _call_or_error(load: Callable[[Any], Tensor], value: Any) -> Tensor | DataError:
    try:
        return load(value)
    except DataError as error:
        return error


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 3] + "..."
