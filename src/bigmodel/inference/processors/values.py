"""Numeric predictions: a value in its own units, or the probability of each of several labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from bigmodel.inference.processors.columns import format_columns

_Predictions = Iterable[tuple[str, Mapping[str, Any]]]


def output_values(outputs_NK: Tensor, mean: float, std: float) -> list[dict[str, Any]]:
    """Return the first output of each sample in its own units: outputs are standardized by `mean` and `std`."""
    values_N = outputs_NK[:, 0].double().cpu() * std + mean
    return [{"value": value} for value in values_N.tolist()]


def label_probabilities(logits_NK: Tensor, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the probability of each label, by name, for each sample."""
    rows = logits_NK.float().sigmoid().tolist()
    return [{"labels": dict(zip(labels, row, strict=True))} for row in rows]


def format_values(head: str, sources: Sequence[str], target: str, predictions: _Predictions) -> Iterator[str]:
    """Yield a line for each input with its value."""
    return format_columns(head, sources, [target], ((source, [one["value"]]) for source, one in predictions))


def format_labels(head: str, sources: Sequence[str], labels: Sequence[str], predictions: _Predictions) -> Iterator[str]:
    """Yield a line for each input with a column for each label."""
    rows = ((source, [*one["labels"].values()]) for source, one in predictions)
    return format_columns(head, sources, labels, rows)
