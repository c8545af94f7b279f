"""The files, or the text, that `input=` means."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path

from bigmodel.datasets.folder_walk import passed_over, walk
from bigmodel.errors import DataError
from bigmodel.words import printable

_SHOWN = 12  # suffixes in a message


def files(given: str, suffixes: Set[str], what: str, is_one: Callable[[str], bool] | None = None) -> Iterable[str]:
    """One file, a folder's files with these suffixes and those below it, or the matches of a pattern; for `-` the files
    that standard input names, each as soon as its line has come. In a folder, those without a suffix are asked of
    `is_one`, and what is passed over is told on standard error.

    Raises:
        DataError: there are none; `what` says of what, as "image".
    """
    if given == "-":
        return _named(what)
    path = Path(given)
    if path.is_dir():
        passed: Counter[str] = Counter()
        found = list(walk(path, suffixes, passed, is_one))
        for line in passed_over(passed):
            print(f"warning: {given}: {line}", file=sys.stderr)
        if not found:
            shown = sorted(suffixes)
            rest = f" and {len(shown) - _SHOWN} others" if len(shown) > _SHOWN else ""
            raise DataError(
                f"input: there are no {what}s in the folder '{given}'; looked for {', '.join(shown[:_SHOWN])}{rest}"
            )
        return sorted(found)
    if path.exists():
        return [given]
    found = [file for file in glob.glob(given, recursive=True) if Path(file).is_file()]
    if not found:
        raise DataError(f"input: there is no {what}, folder or match for '{given}'")
    return sorted(found)


def _named(what: str) -> Iterator[str]:
    found = False
    for line in sys.stdin.buffer:  # names are bytes, and need not be text
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            found = True
            yield name
    if not found:
        raise DataError(f"input: standard input names no {what}; give the name of one in each line")


def content(given: str) -> str:
    """A text itself, or that of the file of this name, or of standard input for `-`.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    try:
        if given == "-":
            return sys.stdin.read()
        return Path(given).read_text(encoding="utf-8") if os.path.isfile(given) else given
    except (OSError, ValueError) as error:
        raise DataError(f"input: '{printable(given)}' cannot be read as text: {error}") from error


def lines(given: str) -> list[str]:
    """The lines of `content` that are not empty. DataError if there are none."""
    found = [line for line in content(given).splitlines() if line.strip()]
    if not found:
        raise DataError("input: holds no text; give a text, a file with one in each line, or - for standard input")
    return found
