"""Listener that writes `metrics.csv`, the events of `metrics.jsonl` as a table for spreadsheets."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from bigmodel.listeners.metrics_file import flatten_event
from bigmodel.safe_files import LARGEST_LINES, read_text, replacing

__all__ = ["CsvFile"]


class CsvFile:
    """Collects records, a resumed run's earlier ones included, and writes the table when the run closes."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "metrics.csv"
        earlier = directory / "metrics.jsonl"
        lines = read_text(earlier, LARGEST_LINES).splitlines() if earlier.exists() else []
        self._records = [json.loads(line) for line in lines]

    def __call__(self, event: object) -> None:
        record = flatten_event(event)
        if record:
            self._records.append(record)

    def close(self) -> None:
        columns = list(dict.fromkeys(key for record in self._records for key in record))
        with replacing(self._path) as scratch, scratch.open("x", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._records)
