"""Answers that are numbers: a line for each input, a column for each number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bigmodel.words import printable

_WIDTH = 12


def columns(
    head: str, sources: Sequence[str], names: Sequence[str], answered: Iterable[tuple[str, Sequence[float]]]
) -> Iterator[str]:
    """The first column is wide enough for every source, known beforehand, so that rows appear as they are computed."""
    first = max(len(printable(text)) for text in (head, *sources))
    widths = [max(_WIDTH, len(printable(name))) for name in names]
    yield "  ".join([f"{head:<{first}}", *(f"{printable(n):>{width}}" for n, width in zip(names, widths, strict=True))])
    for source, values in answered:
        shown = (f"{value:>{width}.6g}" for value, width in zip(values, widths, strict=True))
        yield "  ".join([f"{printable(source):<{first}}", *shown])
