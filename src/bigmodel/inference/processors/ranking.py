"""Format the predictions of classifiers: classes with their probabilities, most probable first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bigmodel.constraints import PositiveInt
from bigmodel.formatting import columns_of, escape_control, left
from bigmodel.interfaces import NoOptions


@dataclass(frozen=True)
class RankingOptions(NoOptions):
    """Prediction options of classifiers."""

    top: PositiveInt | None = 3  # classes to name for each input; None: all


def top_classes(logits_NC: Tensor, classes: Sequence[str], top: int | None = None) -> list[dict[str, Any]]:
    """Return for each row of logits the most probable class, its probability, and the `top` classes (None: all)."""
    sorted_NC = logits_NC.float().softmax(1).sort(dim=1, descending=True, stable=True)
    indices_NK, probs_NK = sorted_NC.indices[:, :top], sorted_NC.values[:, :top]
    predictions = []
    for indices, probs in zip(indices_NK.tolist(), probs_NK.tolist(), strict=True):
        ranked = [{"class": classes[i], "probability": prob} for i, prob in zip(indices, probs, strict=True)]
        predictions.append({**ranked[0], "top": ranked})
    return predictions


def format_ranking(
    head: str, sources: Sequence[str], classes: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
) -> Iterator[str]:
    """Yield a header and one line for each prediction.

    Columns are as wide as the widest source and class, so that a line can be printed before the next is computed.
    """
    source_width = max(columns_of(escape_control(text)) for text in (head, *sources))
    class_width = max(columns_of(escape_control(text)) for text in ("class", *classes))
    for index, (source, prediction) in enumerate(predictions):
        if index == 0:
            columns = (f"{'class':<{class_width}}  probability" for _ in prediction["top"])
            yield f"{head:<{source_width}}  {'  '.join(columns)}"
        cells = (
            f"{left(escape_control(one['class']), class_width)}  {one['probability']:>11.4f}"
            for one in prediction["top"]
        )
        yield f"{left(escape_control(source), source_width)}  {'  '.join(cells)}"
