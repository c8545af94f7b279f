"""Predict for a text a number in its own units, or the probability of each of several labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bigmodel.constraints import Positive, PositiveInt
from bigmodel.inference.processors.sentences import TextClassificationProcessor
from bigmodel.inference.processors.steps import Step, label_steps, number_steps
from bigmodel.inference.processors.values import format_labels, format_values, label_probabilities, output_values
from bigmodel.interfaces import NoOptions

__all__ = ["TextMultiLabelProcessor", "TextRegressionProcessor"]


class TextRegressionProcessor(TextClassificationProcessor):
    """`Processor` of models that predict a standardized number for a text.

    `input` has the forms of `TextClassificationProcessor`.

    Raises:
        ValueError: see `TextClassificationProcessor`.
    """

    Options = NoOptions

    def __init__(
        self,
        target: str,
        target_mean: float,
        target_std: Positive,
        tokenizer: Mapping[str, Any],
        context: PositiveInt,
        text_column: Sequence[str] = (),
        separator: str | None = None,
        encoding: str | None = None,
    ) -> None:
        super().__init__([target], tokenizer, context, text_column, separator=separator, encoding=encoding)
        self._mean = target_mean
        self._std = target_std

    def steps(self) -> Mapping[str, Sequence[Step]]:
        return {**super().steps(), "postprocess": number_steps(self._classes, [self._mean], [self._std])}

    def predict(self, model: nn.Module, inputs: Tensor, options: NoOptions) -> list[dict[str, Any]]:
        return output_values(model(inputs), self._mean, self._std)

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        return format_values("text", sources, self._classes[0], predictions)


class TextMultiLabelProcessor(TextClassificationProcessor):
    """`Processor` of models that predict the probability of each label for a text.

    `input` has the forms of `TextClassificationProcessor`.

    Raises:
        ValueError: see `TextClassificationProcessor`; `labels` are its `classes`.
    """

    Options = NoOptions

    def __init__(
        self,
        labels: Sequence[str],
        tokenizer: Mapping[str, Any],
        context: PositiveInt,
        text_column: Sequence[str] = (),
        separator: str | None = None,
        encoding: str | None = None,
    ) -> None:
        super().__init__(labels, tokenizer, context, text_column, separator=separator, encoding=encoding)

    def steps(self) -> Mapping[str, Sequence[Step]]:
        return {**super().steps(), "postprocess": label_steps(self._classes)}

    def predict(self, model: nn.Module, inputs: Tensor, options: NoOptions) -> list[dict[str, Any]]:
        return label_probabilities(model(inputs), self._classes)

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        return format_labels("text", sources, self._classes, predictions)
