"""Repair the metrics file and read the summary of an interrupted run before it is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bigmodel.safe_files import LARGEST_LINES, read_bytes, read_text, write_text


def truncate_metrics(metrics: Path, step: int) -> tuple[list[dict[str, Any]], list[int]]:
    """Truncate metrics.jsonl after `step`, so that a resumed run logs each step once.

    Returns the records that stay, and the numbers, from 1, of damaged lines, which are dropped. A partial last line is
    dropped too, and does not count as damaged: a kill leaves one.
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
    """Parse a line into a record with a step and a split; None for anything else."""
    try:
        record = json.loads(line.decode("utf-8"))
        is_valid = isinstance(record["step"], int) and isinstance(record["split"], str)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return record if is_valid else None


def read_elapsed_seconds(directory: Path) -> float:
    """Return the seconds that a run has trained so far, from its summary; 0 without a summary.

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
            f"{directory / 'summary.json'}: damaged; its elapsed seconds are lost, the rest is rewritten"
        ) from error
