"""Read JSON and JSON lines that a killed process may have left torn or missing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bigmodel.safe_files import open_regular, read_text

_TAIL_BYTES = 8192


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """Read a JSON object; a missing or unreadable file, or any other value, gives an empty one."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads(read_text(path))
        if isinstance(value, dict):
            return value
    return {}


def tail_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records in the last 8 KiB of a file of JSON lines."""
    with contextlib.suppress(OSError):
        yield from parse_jsonl(last_bytes(path).splitlines())


def parse_jsonl(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each line that holds one."""
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def last_bytes(path: Path) -> bytes:
    """Return the last 8 KiB of a file. Raises OSError."""
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        return file.read()


def ends_with_newline(descriptor: int, size: int) -> bool:
    """Return whether an open file of this size in bytes ends with a line break."""
    return os.pread(descriptor, 1, size - 1) == b"\n"
