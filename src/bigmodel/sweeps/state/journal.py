"""Journal of a sweep: a synced line of JSON for each start, end and pruning of a job."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from bigmodel.runs.tolerant_json import ends_with_newline, parse_jsonl
from bigmodel.safe_files import LARGEST_LINES, fsync_directory, open_own, read_bytes


def append_record(journal: Path, number: int, event: str, code: int | None) -> None:
    """Add a record. It is on the disk when this returns."""
    record = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), "job": number, "event": event}
    line = json.dumps(record if code is None else record | {"code": code}) + "\n"
    is_new = not journal.exists()
    with open(open_own(journal, os.O_RDWR | os.O_APPEND), "ab+") as file:
        if file.tell() and not ends_with_newline(file.fileno(), file.tell()):
            line = "\n" + line  # ends a line that a kill has torn; readers skip it
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        fsync_directory(journal.parent)


def read_records(journal: Path) -> Iterator[dict[str, Any]]:
    """Yield the records that can be read, in order; none without a journal."""
    with contextlib.suppress(OSError):
        yield from parse_jsonl(read_bytes(journal, LARGEST_LINES).splitlines())
