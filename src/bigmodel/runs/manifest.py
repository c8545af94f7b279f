"""Manifest of a checkpoint: the size and SHA-256 of each file, and whether the checkpoint still has them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bigmodel.errors import StorageError
from bigmodel.runs.checkpoint_path import step_of
from bigmodel.safe_files import open_regular, read_text, refuse_large, write_json

SCHEMA, SCHEMA_OF_PARTS = 1, 2  # the second for tensors of which each file has some rows
MANIFEST = "MANIFEST.json"
FIRST_ROWS = "first_rows"
_PART = re.compile(r"(?P<group>\w+)\.(?P<part>\d{5})-of-(?P<parts>\d{5})\.safetensors")
_MAX_BYTES = 1 << 26  # bytes; one that divides the tensors of a large model among many ranks names each of them often


def write_manifest(directory: Path, step: int, files: Mapping[str, Mapping[str, Any]], passing: bool) -> None:
    """Write the manifest; `files` has `size`, `sha256` and, of parts, `first_rows` by file name."""
    mark = {"passing": True} if passing else {}
    schema = SCHEMA_OF_PARTS if any(FIRST_ROWS in entry for entry in files.values()) else SCHEMA
    write_json(directory / MANIFEST, {"schema": schema, "step": step, "files": files, **mark})


def read_manifest(path: Path) -> Any:
    """Return the manifest of the checkpoint at `path`, unchecked. Raises OSError or ValueError."""
    return json.loads(read_text(path / MANIFEST, _MAX_BYTES))


def is_passing(path: Path) -> bool:
    """Whether a checkpoint was saved only because its run was stopped."""
    try:
        return bool(read_manifest(path).get("passing"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def verify(path: Path, by_hash: bool = True, fits_memory: bool = True) -> dict[str, Any]:
    """Compare a checkpoint's files with its manifest, and return the manifest. Without `by_hash` another rank has
    compared the contents; without `fits_memory` the files may be larger than this machine's memory.

    Raises:
        StorageError: the manifest or a file is missing, altered or unreadable; the message names it.
    """
    try:
        manifest: dict[str, Any] = read_manifest(path)
        files: dict[str, dict[str, Any]] = manifest["files"]
        expected = [(name, int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()]
        schema = manifest["schema"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        why = "cannot be read" if isinstance(error, PermissionError) else "missing or damaged"
        raise StorageError(f"{path / MANIFEST}: {why}, so this is not a whole checkpoint ({error!r})") from error
    if path.is_dir() and step_of(path) not in (None, manifest.get("step")):
        raise StorageError(f"{path}: holds step {manifest.get('step')}, not what its name says")
    if schema not in (SCHEMA, SCHEMA_OF_PARTS):
        raise StorageError(f"{path}: written as schema {schema}; this version reads {SCHEMA} and {SCHEMA_OF_PARTS}")
    if not _is_whole(files, schema):
        raise StorageError(f"{path / MANIFEST}: lists no state or no model, so this is not a whole checkpoint")
    for name, size, _ in expected:
        file = path / name
        if Path(name).name != name or file.is_symlink() or not file.is_file():
            raise StorageError(f"{file}: missing from the checkpoint")
        if file.stat().st_size != size:
            raise StorageError(f"{file}: {file.stat().st_size} bytes, not the {size} that were written")
    try:
        refuse_large({path / name: size for name, size, _ in expected}, fits_memory)
    except OSError as error:
        raise StorageError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    for name, _, digest in expected if by_hash else ():
        try:
            found = sha256(path / name)
        except OSError as error:
            raise StorageError(f"{path / name}: cannot be read: {error.strerror or error}") from error
        if found != digest:
            raise StorageError(f"{path / name}: its contents are not those that were written (SHA-256 differs)")
    return manifest


def _is_whole(files: Iterable[str], schema: int) -> bool:
    """Whether the files are those of a checkpoint: of parts, as many for each group of tensors as their names say."""
    if schema == SCHEMA:
        return {"state.json", "model.safetensors"} <= {*files}
    parts: dict[str, list[tuple[int, int]]] = {}
    for match in filter(None, map(_PART.fullmatch, files)):
        parts.setdefault(match["group"], []).append((int(match["part"]), int(match["parts"])))
    return {"state.json"} <= {*files} and "model" in parts and all(_are_all(found) for found in parts.values())


def _are_all(parts: Iterable[tuple[int, int]]) -> bool:
    numbers, counts = zip(*sorted(parts), strict=True)
    return [*numbers] == [*range(1, counts[0] + 1)] and {*counts} == {counts[0]}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
