"""The files, or the text, that `input=` means."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from bigmodel.durable import read_text
from bigmodel.errors import DataError
from bigmodel.words import printable


def files(given: str, suffixes: Set[str], what: str) -> Iterable[str]:
    """One file, a folder's files with these suffixes and those below it, or the matches of a pattern; for `-` the files
    that standard input names, each as soon as its line has come.

    Raises:
        DataError: there are none; `what` says of what, as "image".
    """
    if given == "-":
        return _named(what)
    path = Path(given)
    if path.is_dir():
        found = [
            str(file)
            for file in path.rglob("*")
            if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
        ]
        if not found:
            raise DataError(
                f"input: there are no {what}s in the folder '{given}'; looked for {', '.join(sorted(suffixes))}"
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
        return read_text(given) if os.path.isfile(given) else given
    except (OSError, ValueError) as error:
        raise DataError(f"input: '{printable(given)}' cannot be read as text: {error}") from error


def lines(given: str) -> list[str]:
    """The lines of `content` that are not empty. DataError if there are none."""
    found = [line for line in content(given).splitlines() if line.strip()]
    if not found:
        raise DataError("input: holds no text; give a text, a file with one in each line, or - for standard input")
    return found
