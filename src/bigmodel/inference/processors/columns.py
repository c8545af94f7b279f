"""Answers that are numbers: a line for each input, a column for each number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bigmodel.formatting import columns_of, escape_control, left, right

_WIDTH = 12


def format_columns(
    head: str, sources: Sequence[str], names: Sequence[str], answered: Iterable[tuple[str, Sequence[float]]]
) -> Iterator[str]:
    """The first column is wide enough for every source, known beforehand, so that rows appear as they are computed."""
    first = max(columns_of(escape_control(text)) for text in (head, *sources))
    widths = [max(_WIDTH, columns_of(escape_control(name))) for name in names]
    yield "  ".join(
        [left(head, first), *(right(escape_control(n), size) for n, size in zip(names, widths, strict=True))]
    )
    for source, values in answered:
        shown = (f"{value:>{size}.6g}" for value, size in zip(values, widths, strict=True))
        yield "  ".join([left(escape_control(source), first), *shown])
