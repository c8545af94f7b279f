"""The confusion matrix, the most confused pairs and a table of the classes, from counts (true, predicted)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bigmodel.runs.report.html import beside, escape, section, table
from bigmodel.runs.report.media import opacity_picture

_MAX_MATRIX = 30  # classes whose matrix can be read
_MAX_PAIRS = 12
MAX_CLASSES = 1000
_STRONGEST = 62  # percent of color in a cell, so that its number can be read

Matrix = Sequence[Sequence[int]]


def read_matrix(value: Any) -> Matrix | None:
    """Return a square matrix of counts from a file, or None if the value is anything else."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_CLASSES:
        return None
    square = all(isinstance(row, list) and len(row) == len(value) for row in value)
    counts = square and all(type(n) is int and 0 <= n < 1 << 53 for row in value for n in row)
    return value if counts else None


def class_names(value: Any, count: int) -> list[str]:
    """Return the names of the classes, or their numbers where a file has none."""
    if isinstance(value, list) and len(value) == count and all(isinstance(name, str) for name in value):
        return value
    return [str(index) for index in range(count)]


def confusion(matrix: Matrix, names: Sequence[str], where: str) -> str:
    """Return the sections of a classifier's counts. `where` names the samples, as `359 samples of test`."""
    total = sum(map(sum, matrix))
    if not total:
        return ""
    pairs = sorted(((n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n), reverse=True)
    rows = [[names[i], names[j], str(n), f"{n / max(1, sum(matrix[i])):.1%}"] for n, i, j in pairs[:_MAX_PAIRS]]
    head = ["true class", "taken for", "times", "of the class"]
    listed = table(head, rows, "Most confused pairs") if rows else ""
    drawn = _matrix(matrix, names) if len(matrix) <= _MAX_MATRIX else _heat(matrix)
    note = f"{where}. Rows are the true classes, columns the predicted ones."
    return section("Confusion matrix", beside(drawn, listed), note=note) + section("Classes", _classes(matrix, names))


def _matrix(matrix: Matrix, names: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name, 40)}</th>' for name in names)
    body = []
    for i, row in enumerate(matrix):
        whole = max(1, sum(row))
        cells = "".join(
            f'<td class="{"hit" if i == j else "miss"}" style="--v:{_STRONGEST * (n / whole) ** 0.5:.0f}%" '
            f'title="{escape(names[i], 40)} taken for {escape(names[j], 40)}: {n} of {whole}">{n or ""}</td>'
            for j, n in enumerate(row)
        )
        body.append(f'<tr><th scope="row">{escape(names[i], 40)}</th>{cells}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="confusion matrix"><table class="matrix">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _heat(matrix: Matrix) -> str:
    """Return a picture with a point for each cell, whose opacity is the share of its row, root of: errors are rare."""
    sums = [max(1, sum(row)) for row in matrix]
    levels = [round(255 * (n / whole) ** 0.5) for row, whole in zip(matrix, sums, strict=True) for n in row]
    return f'<div class="heat">{opacity_picture(bytes(levels), len(matrix), "confusion matrix")}</div>'


def _classes(matrix: Matrix, names: Sequence[str]) -> str:
    predicted = [sum(column) for column in zip(*matrix, strict=True)]
    rows = []
    for i, row in enumerate(matrix):
        true, hits = sum(row), row[i]
        recall = hits / true if true else None
        precision = hits / predicted[i] if predicted[i] else None
        f1 = 2 * hits / (true + predicted[i]) if true + predicted[i] else None
        rows.append([names[i], *(f"{n:.1%}" if n is not None else "–" for n in (recall, precision, f1)), str(true)])
    return table(["class", "recall", "precision", "F1", "samples"], rows, "Recall is the accuracy on a class")
