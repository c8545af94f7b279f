"""Classify pictures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bigmodel.constraints import Positive, PositiveInt
from bigmodel.datasets.images.picture_check import is_picture, readable_suffixes
from bigmodel.datasets.images.picture_files import draft_size, fit_picture, open_image
from bigmodel.datasets.images.pixels import PixelRules
from bigmodel.datasets.images.source import normalize
from bigmodel.errors import DataError
from bigmodel.inference.inputs import as_array, as_picture
from bigmodel.inference.processors.files import list_files
from bigmodel.inference.processors.ranking import RankingOptions, format_ranking, top_classes
from bigmodel.inference.processors.steps import Step, class_steps
from bigmodel.inference.shown import Shown
from bigmodel.interfaces import Axis, NoOptions

__all__ = ["ImageClassificationProcessor"]

_DARK = 15  # of 255: a picture without a higher value looks black
_MAX_VALUES = 1 << 26  # in one image


class ImageClassificationProcessor:
    """`Processor` of image classifiers.

    `mean` and `std` are per channel, of pixel values in [0, 1]. Pictures are read by the `PixelRules` of the training
    run.

    Raises:
        ValueError: the arguments contradict each other, or an image has too many values.
    """

    Options: type[NoOptions] = RankingOptions
    array_dimensions = 3  # of one picture in memory; one more is a batch

    def __init__(
        self,
        classes: Sequence[str],
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        mean: Sequence[float],
        std: Sequence[Positive],
        value_range: Literal["type"] | tuple[float, float] | None = None,
        background: Literal["white", "black"] | tuple[int, int, int] | None = None,
    ) -> None:
        if not classes:
            raise ValueError("classes: must not be empty")
        if math.prod(input_shape) > _MAX_VALUES:
            raise ValueError(f"input_shape: {list(input_shape)} is more than {_MAX_VALUES} values")
        if not len(mean) == len(std) == input_shape[0]:
            raise ValueError(f"mean and std: must be {input_shape[0]} numbers each, one per channel")
        self._rules = PixelRules(value_range, background)
        self._classes = classes
        self._shape = tuple(input_shape)
        self._mean = mean
        self._std = std

    def list_inputs(self, given: str) -> Iterable[str]:
        return list_files(given, readable_suffixes(), "image", is_picture)

    def load(self, source: str) -> Tensor:
        """Read a picture file: uint8 (C, H, W)."""
        return open_image(source, self._shape, self._rules)

    def convert(self, value: object) -> Tensor:
        """Convert a picture in memory: uint8 (C, H, W); see `as_picture`."""
        try:
            picture = fit_picture(as_picture(value), self._shape, self._rules)
        except (OSError, ValueError) as error:
            raise DataError(f"input: not a readable picture ({error})") from error
        array = as_array(value)
        if array is not None and array.dtype.kind in "iu" and array.any() and int(picture.max()) <= _DARK:
            warnings.warn(
                f"input: a picture of whole numbers up to {array.max()} ({array.dtype}) is read as "
                f"{self._value_range(array)}, and is nearly black; if its largest value is white, give floats "
                "from 0 to 1",
                stacklevel=2,
            )
        return picture

    def _value_range(self, array: NDArray[Any]) -> str:
        """Describe which values of this array are black and white."""
        if array.dtype != np.uint16 or self._rules.value_range is None:
            return "0 to 255" if array.dtype != np.uint16 else "0 to 65535"
        if self._rules.value_range == "type":
            return "0 to 65535 (the run's dataset.value_range=type)"
        low, high = self._rules.value_range
        return f"{low:g} to {high:g} (the run's dataset.value_range)"

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """Stack and normalize pictures: float32 (N, C, H, W)."""
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (self._mean, self._std))
        return normalize(torch.stack([*samples]).to(device), mean, std)

    def predict(self, model: nn.Module, inputs: Tensor, options: RankingOptions) -> list[dict[str, Any]]:
        return top_classes(model(inputs), self._classes, options.top)

    def show(self, inputs: Tensor) -> Shown:
        """Undo the normalization."""
        mean_C11, std_C11 = (torch.tensor(values).view(-1, 1, 1) for values in (self._mean, self._std))
        pixels_CHW = ((inputs.float().cpu() * std_C11 + mean_C11).clamp(0, 1) * 255).round().to(torch.uint8)
        return Shown(picture=pixels_CHW if len(pixels_CHW) == 3 else pixels_CHW[:1])

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        return format_ranking("file", sources, self._classes, predictions)

    def axes(self) -> Mapping[int, Axis]:
        return {2: Axis("height", self._shape[1]), 3: Axis("width", self._shape[2])}

    def steps(self) -> Mapping[str, Sequence[Step]]:
        channels, height, width = self._shape
        return {
            "preprocess": [
                {
                    "op": "decode_image",
                    "orientation": "exif",
                    "mode": "L" if channels == 1 else "RGB",
                    "jpeg_draft": list(draft_size(height, width)),
                    **{"value_range": None, "background": None, **self._rules.about()},
                },
                {"op": "crop_to_aspect", "height": height, "width": width, "anchor": "center"},
                {"op": "resize", "height": height, "width": width, "filter": "bilinear", "antialias": True},
                {"op": "scale", "factor": 1 / 255},
                {"op": "normalize", "axis": "channel", "mean": list(self._mean), "std": list(self._std)},
                {"op": "batch", "layout": "NCHW", "dtype": "float32"},
            ],
            "postprocess": class_steps(self._classes),
        }

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, *self._shape, generator=generator)
