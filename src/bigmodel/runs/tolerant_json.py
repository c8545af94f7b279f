"""What a process that was killed has left of its files: the last line may be torn, and the whole may be missing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigmodel.safe_files import open_regular, read_text

_TAIL = 8192  # bytes of a file that are looked through for its last lines


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """A file's keys; none where it is missing or holds something else."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads(read_text(path))
        if isinstance(value, dict):
            return value
    return {}


def tail_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The last records of a file of JSON lines."""
    with contextlib.suppress(OSError):
        yield from parse_jsonl(last_bytes(path))


def parse_jsonl(text: bytes) -> Iterator[dict[str, Any]]:
    """Of each line that is whole its keys."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def last_bytes(path: Path) -> bytes:
    """Some kilobytes. Raises OSError."""
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        return file.read()


def ends_with_newline(descriptor: int, size: int) -> bool:
    """Whether the last line of an open file of this size has its end."""
    return os.pread(descriptor, 1, size - 1) == b"\n"
