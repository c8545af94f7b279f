"""Find the files, or read the text, that `input=` names."""

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
from bigmodel.formatting import escape_control, format_count, truncate
from bigmodel.safe_files import open_regular

_MAX_SUFFIXES_SHOWN = 12  # in a message
_MAX_BYTES = 1 << 30  # of a text file


def list_files(given: str, suffixes: Set[str], what: str, is_one: Callable[[str], bool] | None = None) -> Iterable[str]:
    """List the files that `given` names.

    - A file: itself. A pattern: its matches.
    - A folder: its files with these suffixes, at any depth, and those without a suffix for which `is_one` holds.
      Skipped files are reported on standard error.
    - `-`: the files that standard input names, each as soon as its line arrives.

    Raises:
        DataError: no file matches; `what` is the kind of file for the message, as "image".
    """
    if given == "-":
        return _files_from_stdin(what)
    if not given:
        raise DataError("input: is empty; name a file, a folder or a pattern ('.' is the current folder)")
    path = Path(given)
    if os.path.isdir(path):
        skipped: Counter[str] = Counter()
        files = list(walk_files(path, suffixes, skipped, is_one))
        for line in describe_skipped(skipped):
            print(f"warning: {given}: {line}", file=sys.stderr)
        if not files:
            num_hidden = len(suffixes) - _MAX_SUFFIXES_SHOWN
            shown = ", ".join(sorted(suffixes)[:_MAX_SUFFIXES_SHOWN])
            rest = f" and {format_count(num_hidden, 'other')}" if num_hidden > 0 else ""
            raise DataError(f"input: there are no {what}s in the folder '{given}'; looked for {shown}{rest}")
        return sorted(files)
    if os.path.exists(path):  # `Path.exists` raises for a name that is too long
        return [given]
    files = [file for file in glob.glob(given, recursive=True) if os.path.isfile(file)]
    if not files:
        raise DataError(f"input: there is no {what}, folder or match for '{truncate(given)}'")
    return sorted(files)


def _files_from_stdin(what: str) -> Iterator[str]:
    has_any = False
    for index, line in enumerate(sys.stdin.buffer):  # file names are bytes, not always text
        line = line.removeprefix(codecs.BOM_UTF8) if index == 0 else line
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            has_any = True
            yield name
    if not has_any:
        raise DataError(f"input: standard input names no {what}; give one file name per line")


def read_text(file: str, encoding: str | None = None) -> str:
    """Read a text file: UTF-8, else `encoding`.

    Raises:
        DataError: the file cannot be read, is too large, or is not text in either.
    """
    try:
        with open_regular(file) as stream:
            content = stream.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"input: '{escape_control(file)}' cannot be read: {error}") from error
    if len(content) > _MAX_BYTES:
        raise DataError(f"input: '{escape_control(file)}': more than {_MAX_BYTES >> 20} MiB of text; split it")
    return _decode(content, file, encoding)


def read_standard_input(encoding: str | None = None) -> str:
    """Read standard input as text: UTF-8, else `encoding`.

    Raises:
        DataError: it is not text in either.
    """
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:  # already decoded, as under a program that replaces sys.stdin
        return sys.stdin.read().removeprefix("\ufeff")
    return _decode(stream.read(), "standard input", encoding)


def _decode(content: bytes, origin: str, encoding: str | None) -> str:
    if encoding is not None:
        with contextlib.suppress(DataError):  # text in another encoding is hardly ever valid UTF-8
            return decode(content, origin)
    return decode(content, f"input: {escape_control(origin)}", encoding, key="encoding")
