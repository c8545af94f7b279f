"""Picture files, and the classes that they may be of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bigmodel.datasets.files import open_image
from bigmodel.datasets.images import normalised
from bigmodel.datasets.picture_check import is_picture, suffixes
from bigmodel.datasets.pixels import PixelRules
from bigmodel.predicting import ranking
from bigmodel.predicting.files import files
from bigmodel.ranges import Positive, PositiveInt

__all__ = ["Images"]

_LARGEST = 1 << 26  # values in one image


class Images:
    """The `Kind` of image classifiers: mean and std are per channel, of values from 0 to 1. Pictures are read by the
    rules of `PixelRules` that the run was trained with.

    Raises:
        ValueError: the values do not fit together, or no memory would hold an image.
    """

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
            raise ValueError("classes: there are none")
        if math.prod(input_shape) > _LARGEST:
            raise ValueError(f"input_shape: {list(input_shape)} is larger than any image")
        if not len(mean) == len(std) == input_shape[0]:
            raise ValueError(f"mean and std: must be {input_shape[0]} numbers each, one a channel")
        self._rules = PixelRules(value_range, background)
        self._classes, self._shape, self._mean, self._std = classes, tuple(input_shape), mean, std

    def find(self, given: str) -> Iterable[str]:
        return files(given, suffixes(), "image", is_picture)

    def read(self, source: str) -> Tensor:
        """uint8 (C, H, W)."""
        return open_image(source, self._shape, self._rules)

    def prepared(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """float32 (N, C, H, W), normalised."""
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (self._mean, self._std))
        return normalised(torch.stack([*samples]).to(device), mean, std)

    def answers(self, model: nn.Module, inputs: Tensor, top: int | None = None, **_: Any) -> list[dict[str, Any]]:
        return ranking.ranked(model(inputs), self._classes, top)

    def table(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        return ranking.table("file", sources, self._classes, answered)

    def example(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, *self._shape, generator=generator)
