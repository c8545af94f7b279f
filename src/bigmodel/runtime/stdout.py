"""Print lines without failing when standard output is closed or full."""

from __future__ import annotations

import os
import sys


def print_line(text: str) -> None:
    """Print a line; discard it if stdout is closed or full. Characters outside its encoding are escaped."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(text.encode("ascii", "backslashreplace").decode(), flush=True)
    except OSError:
        silence()


def silence() -> None:
    """Redirect standard output to the null device from now on."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - so that exit does not flush into the pipe
