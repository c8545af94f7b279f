"""Format numeric predictions: one line for each input, one column for each number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bigmodel.formatting import columns_of, escape_control, left, right

_MIN_WIDTH = 12


def format_columns(
    head: str, sources: Sequence[str], names: Sequence[str], predictions: Iterable[tuple[str, Sequence[float]]]
) -> Iterator[str]:
    """Yield a header and one line for each prediction.

    The first column is as wide as the widest source, so that a line can be printed before the next is computed.
    """
    source_width = max(columns_of(escape_control(text)) for text in (head, *sources))
    widths = [max(_MIN_WIDTH, columns_of(escape_control(name))) for name in names]
    header = [right(escape_control(name), width) for name, width in zip(names, widths, strict=True)]
    yield "  ".join([left(head, source_width), *header])
    for source, values in predictions:
        cells = (f"{value:>{width}.6g}" for value, width in zip(values, widths, strict=True))
        yield "  ".join([left(escape_control(source), source_width), *cells])
