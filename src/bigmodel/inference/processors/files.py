"""The files, or the text, that `input=` means."""

from __future__ import annotations

import codecs
import contextlib
import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path

from bigmodel.datasets.files.folder_walk import describe_skipped, walk_files
from bigmodel.datasets.files.text_encoding import decode
from bigmodel.errors import DataError
from bigmodel.formatting import escape_control, truncate
from bigmodel.safe_files import open_regular

_SHOWN = 12  # suffixes in a message
_LARGEST = 1 << 30  # bytes of text


def list_files(given: str, suffixes: Set[str], what: str, is_one: Callable[[str], bool] | None = None) -> Iterable[str]:
    """One file, a folder's files with these suffixes and those below it, or the matches of a pattern; for `-` the files
    that standard input names, each as soon as its line has come. In a folder, those without a suffix are asked of
    `is_one`, and what is passed over is told on standard error.

    Raises:
        DataError: there are none; `what` says of what, as "image".
    """
    if given == "-":
        return _named(what)
    if not given:
        raise DataError("input: is empty; name a file, a folder or a pattern ('.' is the folder you are in)")
    path = Path(given)
    if os.path.isdir(path):
        passed: Counter[str] = Counter()
        found = list(walk_files(path, suffixes, passed, is_one))
        for line in describe_skipped(passed):
            print(f"warning: {given}: {line}", file=sys.stderr)
        if not found:
            shown = sorted(suffixes)
            rest = f" and {len(shown) - _SHOWN} others" if len(shown) > _SHOWN else ""
            raise DataError(
                f"input: there are no {what}s in the folder '{given}'; looked for {', '.join(shown[:_SHOWN])}{rest}"
            )
        return sorted(found)
    if os.path.exists(path):  # not Path's, which raises where a name is too long for any file
        return [given]
    found = [file for file in glob.glob(given, recursive=True) if os.path.isfile(file)]
    if not found:
        raise DataError(f"input: there is no {what}, folder or match for '{truncate(given)}'")
    return sorted(found)


def _named(what: str) -> Iterator[str]:
    found = False
    for number, line in enumerate(sys.stdin.buffer):  # names are bytes, and need not be text
        if name := os.fsdecode((line if number else line.removeprefix(codecs.BOM_UTF8)).rstrip(b"\r\n")):
            found = True
            yield name
    if not found:
        raise DataError(f"input: standard input names no {what}; give the name of one in each line")


def read_text(file: str, encoding: str | None = None) -> str:
    """The text of a file in UTF-8, or else in this encoding.

    Raises:
        DataError: the file cannot be read, or is not text in it.
    """
    try:
        with open_regular(file) as stream:
            found = stream.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"input: '{escape_control(file)}' cannot be read: {error}") from error
    if len(found) > _LARGEST:
        raise DataError(f"input: '{escape_control(file)}': more than {_LARGEST >> 20} MiB of text; split it")
    return _text(found, file, encoding)


def standard_input(encoding: str | None = None) -> str:
    """The text of standard input, as `content` reads a file's.

    Raises:
        DataError: it is not text.
    """
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:  # text already, as where a program stands in for a terminal
        return sys.stdin.read().removeprefix("\ufeff")
    return _text(stream.read(), "standard input", encoding)


def _text(found: bytes, place: str, encoding: str | None) -> str:
    if encoding is not None:
        with contextlib.suppress(DataError):  # text in another encoding is hardly ever UTF-8
            return decode(found, place)
    return decode(found, f"input: {escape_control(place)}", encoding, key="encoding")
