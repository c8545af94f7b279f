"""Bring the metrics file and the summary of an interrupted run to the state of its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bigmodel.safe_files import (
    LARGEST_LINES,
    read_bytes,
    read_text,
    write_text,
)


def truncate_metrics(metrics: Path, step: int) -> tuple[list[dict[str, Any]], list[int]]:
    """Rewrite a metrics file without what a run that is resumed at `step` will write again.

    Returns the records that stay, and the numbers of the lines, from 1, that are damaged and are left out. A last line
    without its end is what a kill leaves, and is no damage.
    """
    if not metrics.exists():
        return [], []
    lines = read_bytes(metrics, LARGEST_LINES).splitlines(keepends=True)
    kept: list[bytes] = []
    records: list[dict[str, Any]] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        record = _record(line)
        if record is None:
            damaged.append(number)
        elif record["step"] <= step and record["split"] != "test":
            kept.append(line)
            records.append(record)
    write_text(metrics, b"".join(kept).decode("utf-8"))
    return records, damaged


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of metrics as a record with a step and a split, or None for anything else."""
    try:
        record = json.loads(line.decode("utf-8"))
        sound = isinstance(record["step"], int) and isinstance(record["split"], str)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return record if sound else None


def read_elapsed_seconds(directory: Path) -> float:
    """Seconds that a run has been worked on before, by its summary; 0 where that has none.

    Raises:
        ValueError: the summary is damaged.
    """
    try:
        seconds = json.loads(read_text(directory / "summary.json"))["seconds"]
        return float(seconds)
    except OSError:
        return 0.0
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{directory / 'summary.json'}: damaged; its seconds are lost, all else is made anew"
        ) from error
