"""Answers of classifiers: the classes with their probabilities, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from bigmodel.formatting import columns_of, escape_control, left


def top_classes(outputs_NC: Tensor, classes: Sequence[str], top: int | None = None) -> list[dict[str, Any]]:
    """For each row of logits the likeliest class, its probability, and the `top` likeliest (all if None)."""
    sorted_NK = outputs_NC.float().softmax(1).sort(dim=1, descending=True, stable=True)
    answers = []
    for indices, values in zip(sorted_NK.indices[:, :top].tolist(), sorted_NK.values[:, :top].tolist(), strict=True):
        best = [{"class": classes[i], "probability": value} for i, value in zip(indices, values, strict=True)]
        answers.append({**best[0], "top": best})
    return answers


def format_ranking(
    head: str, sources: Sequence[str], classes: Sequence[str], answered: Iterable[tuple[str, Mapping[str, Any]]]
) -> Iterator[str]:
    """Columns wide enough for every source and class, known beforehand, so that rows appear as they are computed."""
    first = max(columns_of(escape_control(text)) for text in (head, *sources))
    second = max(columns_of(escape_control(text)) for text in ("class", *classes))
    for number, (source, answer) in enumerate(answered):
        if number == 0:
            yield f"{head:<{first}}  " + "  ".join(f"{'class':<{second}}  probability" for _ in answer["top"])
        ranks = (f"{left(escape_control(one['class']), second)}  {one['probability']:>11.4f}" for one in answer["top"])
        yield f"{left(escape_control(source), first)}  {'  '.join(ranks)}"
