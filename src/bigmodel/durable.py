"""Small files written so that they are whole whenever the machine stops. Imports no torch."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

TEMPORARY = ".tmp-"  # what a name begins with until the file is whole


def write_json(path: Path, value: object) -> None:
    """`write_text` of a value as JSON."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is the old one or the new one, whole, whenever the machine stops."""
    scratch = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        scratch.write_text(text, encoding="utf-8")
        sync_file(scratch)
        os.rename(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Have the kernel put a file's contents on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


sync_directory = sync_file  # the same two calls put a directory's entries on the disk
