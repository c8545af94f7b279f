"""Picture files, and what is told of them in numbers: one in its own units, or the probability of each label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from bigmodel.predicting.columns import columns
from bigmodel.predicting.images import Images
from bigmodel.predicting.steps import Step, number_steps
from bigmodel.ranges import Positive, PositiveInt

__all__ = ["ImageLabels", "ImageNumber"]


class ImageNumber(Images):
    """The `Kind` of models that tell a number, standardised, of a picture.

    Raises:
        ValueError: as `Images`.
    """

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
        self._target_mean, self._target_std = target_mean, target_std

    def steps(self) -> Mapping[str, Sequence[Step]]:
        said = number_steps(self._classes, [self._target_mean], [self._target_std])
        return {**super().steps(), "postprocess": said}

    def answers(self, model: nn.Module, inputs: Tensor, top: int | None = None, **_: Any) -> list[dict[str, Any]]:
        values_N = model(inputs)[:, 0].double().cpu() * self._target_std + self._target_mean
        return [{"value": value} for value in values_N.tolist()]

    def table(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        return columns("file", sources, self._classes, ((source, [answer["value"]]) for source, answer in answered))


class ImageLabels(Images):
    """The `Kind` of models that tell of a picture how likely each label is.

    Raises:
        ValueError: as `Images`; the labels are its classes.
    """

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
        said: list[Step] = [{"op": "sigmoid"}, {"op": "name_columns", "axis": 1, "names": list(self._classes)}]
        return {**super().steps(), "postprocess": said}

    def answers(self, model: nn.Module, inputs: Tensor, top: int | None = None, **_: Any) -> list[dict[str, Any]]:
        rows = model(inputs).float().sigmoid().tolist()
        return [{"labels": dict(zip(self._classes, row, strict=True))} for row in rows]

    def table(self, sources: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        told = ((source, [*answer["labels"].values()]) for source, answer in answered)
        return columns("file", sources, self._classes, told)
