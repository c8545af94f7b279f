"""Listener that writes `train.log`: plain lines with times, without control codes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from bigmodel.listeners.lines import format_event
from bigmodel.safe_files import append_to

__all__ = ["LogFile"]


class LogFile:
    """Appends a line for each event that `format_event` has a line for."""

    def __init__(self, directory: Path) -> None:
        self._file = append_to(directory / "train.log")

    def __call__(self, event: object) -> None:
        text = format_event(event)
        if text:
            self.write(text)

    def write(self, text: str) -> None:
        """Append any text, such as a traceback."""
        self._file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
