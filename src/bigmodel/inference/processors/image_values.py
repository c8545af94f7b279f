"""Predict for a picture a number in its own units, or the probability of each of several labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from bigmodel.constraints import Positive, PositiveInt
from bigmodel.inference.processors.images import ImageClassificationProcessor
from bigmodel.inference.processors.steps import Step, label_steps, number_steps
from bigmodel.inference.processors.values import format_labels, format_values, label_probabilities, output_values
from bigmodel.interfaces import NoOptions

__all__ = ["ImageMultiLabelProcessor", "ImageRegressionProcessor"]


class ImageRegressionProcessor(ImageClassificationProcessor):
    """`Processor` of models that predict a standardized number for a picture.

    Raises:
        ValueError: see `ImageClassificationProcessor`.
    """

    Options = NoOptions

    def __init__(
        self,
        target: str,
        target_mean: float,
        target_std: Positive,
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        mean: Sequence[float],
        std: Sequence[Positive],
        value_range: Literal["type"] | tuple[float, float] | None = None,
        background: Literal["white", "black"] | tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__([target], input_shape, mean, std, value_range, background)
        self._target_mean = target_mean
        self._target_std = target_std

    def steps(self) -> Mapping[str, Sequence[Step]]:
        unstandardize = number_steps(self._classes, [self._target_mean], [self._target_std])
        return {**super().steps(), "postprocess": unstandardize}

    def predict(self, model: nn.Module, inputs: Tensor, options: NoOptions) -> list[dict[str, Any]]:
        return output_values(model(inputs), self._target_mean, self._target_std)

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        return format_values("file", sources, self._classes[0], predictions)


class ImageMultiLabelProcessor(ImageClassificationProcessor):
    """`Processor` of models that predict the probability of each label for a picture.

    Raises:
        ValueError: see `ImageClassificationProcessor`; `labels` are its `classes`.
    """

    Options = NoOptions

    def __init__(
        self,
        labels: Sequence[str],
        input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        mean: Sequence[float],
        std: Sequence[Positive],
        value_range: Literal["type"] | tuple[float, float] | None = None,
        background: Literal["white", "black"] | tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(labels, input_shape, mean, std, value_range, background)

    def steps(self) -> Mapping[str, Sequence[Step]]:
        return {**super().steps(), "postprocess": label_steps(self._classes)}

    def predict(self, model: nn.Module, inputs: Tensor, options: NoOptions) -> list[dict[str, Any]]:
        return label_probabilities(model(inputs), self._classes)

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        return format_labels("file", sources, self._classes, predictions)
