"""Whether pages can be drawn here, and writing them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from bigmodel.formatting import first_line
from bigmodel.quoting import path_override, shell_command
from bigmodel.runtime.live_text import StatusLine
from bigmodel.runtime.signals import signals_interrupt
from bigmodel.safe_files import write_text

NAME = "report.html"  # in the directory of a run or a sweep


def can_draw() -> bool:
    """Return whether the optional dependency `plots` is installed."""
    return find_spec("matplotlib") is not None


def write_page(file: Path, page: str) -> None:
    """Write a page; an earlier one is replaced, and a link in its place is not followed. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page)


def try_write(directory: Path, make: Callable[[], str], line: Callable[[str], str] = "report  {}".format) -> str:
    """Write the page of a run or a sweep that has ended, where pages can be drawn.

    Returns what to print: the `line` with where the page is, or a warning; empty where none can be drawn. A page is no
    part of the result, so no error is raised.
    """
    if not can_draw():
        return ""
    again = shell_command("bigmodel-report", path_override("run", directory))
    try:
        with StatusLine() as status, signals_interrupt():
            status.show(f"drawing {NAME}; all else is saved")
            write_page(directory / NAME, make())
    except KeyboardInterrupt as stopped:
        return f"{NAME}: stopped by {str(stopped) or 'SIGINT'}; all else is done and saved; {again} draws it"
    except OSError as error:
        reason = f"{error.filename or directory / NAME}: {error.strerror or error}"
        return f"warning: {NAME} could not be written: {reason}; all else is saved; once fixed, run: {again}"
    except Exception as error:  # of matplotlib, or of a user's own task or dataset
        return f"warning: {NAME} could not be written: {type(error).__name__}: {first_line(error)}"
    return line(str(directory / NAME))
