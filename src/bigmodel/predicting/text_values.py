"""Texts, and what is told of them in numbers: one in its own units, or the probability of each of several labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bigmodel.predicting.columns import columns
from bigmodel.predicting.sentences import Sentences
from bigmodel.predicting.steps import Step, number_steps
from bigmodel.ranges import Positive, PositiveInt

__all__ = ["TextLabels", "TextNumber"]


class TextNumber(Sentences):
    """The `Kind` of models that tell a number, standardised, of a text; `input` is as for `Sentences`.

    Raises:
        ValueError: as `Sentences`.
    """

    def __init__(
        self,
        target: str,
        target_mean: float,
        target_std: Positive,
        tokenizer: Mapping[str, Any],
        context: PositiveInt,
    ) -> None:
        super().__init__([target], tokenizer, context)
        self._mean, self._std = target_mean, target_std

    def steps(self) -> Mapping[str, Sequence[Step]]:
        return {**super().steps(), "postprocess": number_steps(self._classes, [self._mean], [self._std])}

    def answers(self, model: nn.Module, inputs: Tensor, top: int | None = None, **_: Any) -> list[dict[str, Any]]:
        values_N = model(inputs)[:, 0].double().cpu() * self._std + self._mean
        return [{"value": value} for value in values_N.tolist()]

    def table(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        return columns("text", sources, self._classes, ((source, [answer["value"]]) for source, answer in answered))


class TextLabels(Sentences):
    """The `Kind` of models that tell of a text how likely each label is; `input` is as for `Sentences`.

    Raises:
        ValueError: as `Sentences`; the labels are its classes.
    """

    def __init__(self, labels: Sequence[str], tokenizer: Mapping[str, Any], context: PositiveInt) -> None:
        super().__init__(labels, tokenizer, context)

    def steps(self) -> Mapping[str, Sequence[Step]]:
        said: list[Step] = [{"op": "sigmoid"}, {"op": "name_columns", "axis": 1, "names": list(self._classes)}]
        return {**super().steps(), "postprocess": said}

    def answers(self, model: nn.Module, inputs: Tensor, top: int | None = None, **_: Any) -> list[dict[str, Any]]:
        rows = model(inputs).float().sigmoid().tolist()
        return [{"labels": dict(zip(self._classes, row, strict=True))} for row in rows]

    def table(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        told = ((source, [*answer["labels"].values()]) for source, answer in answered)
        return columns("text", sources, self._classes, told)
