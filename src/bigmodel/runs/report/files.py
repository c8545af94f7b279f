"""Whether pages can be drawn here, and writing them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bigmodel.safe_files import write_text

NAME = "report.html"  # in the directory of a run or a sweep


def can_draw() -> bool:
    """Return whether the optional dependency `plots` is installed."""
    return find_spec("matplotlib") is not None


def write_page(file: Path, page: str) -> None:
    """Write a page; an earlier one is replaced, and a link in its place is not followed. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page)
