"""Write the folder that is given away: whole or not at all, every file in its manifest, searched before it is named."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bigmodel.errors import ConfigError, StorageError
from bigmodel.runs.manifest import write_manifest
from bigmodel.runs.sharing.private import PATH, Finding, Names, find_in_json, find_private
from bigmodel.runs.signature import SIGNATURE, sign_folder
from bigmodel.runs.tensor_files import fsync_and_hash, write_tensors
from bigmodel.safe_files import TEMP_PREFIX, fsync_directory, fsync_path, is_there, try_remove

CARD, DATA_CARD, METRICS = "README.md", "croissant.json", "metrics.json"
LICENSES, PACKAGES = "LICENSES.md", "requirements.txt"
_VOCABULARIES = ("tokenizer", "chat", "vocabulary", "definition")  # keys whose words are the data's
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_MAX_SAID = 5


def refuse_existing(to: Path) -> None:
    """Raise ConfigError where the name is taken, StorageError where that cannot be seen."""
    try:
        if is_there(to):
            raise ConfigError(f"to: '{to}' exists; name a new folder")
    except OSError as error:
        raise StorageError(f"{to}: {error.strerror or error}") from error


def write_folder(
    to: Path,
    step: int,
    weights: Mapping[str, Tensor],
    texts: Mapping[str, str],
    names: Names,
    author: Sequence[str],
    write_more: Callable[[Path], object],
    key: str = "",
) -> int:
    """Write the weights, the texts by file name, and what `write_more` adds; return the bytes of all files.

    `author` are texts of the author's own, which may hold their names; `key` is a file with a private key to sign with.

    Raises:
        ConfigError: a file holds what looks private.
        StorageError: the folder cannot be written. Nothing is left behind in either case.
    """
    try:
        with _scratch_beside(to) as scratch:
            files: dict[str, Mapping[str, Any]] = dict(write_tensors(scratch, {"model": weights}))
            for name, text in texts.items():
                (scratch / name).write_text(text, encoding="utf-8")
            write_more(scratch)
            _refuse_private(scratch, names, author)
            for path in sorted(scratch.iterdir()):
                if path.name not in files:
                    files[path.name] = fsync_and_hash(path)
            write_manifest(scratch, step, files, passing=False)
            if key:
                sign_folder(scratch, key)
                fsync_path(scratch / SIGNATURE)
            fsync_directory(scratch)
            refuse_existing(to)
            os.rename(scratch, to)
            fsync_directory(to.parent)
    except OSError as error:
        raise StorageError(f"{to}: cannot be written: {error.strerror or error}; set to=...") from error
    return sum(int(entry["size"]) for entry in files.values())


@contextlib.contextmanager
def _scratch_beside(to: Path) -> Iterator[Path]:
    """Yield a new folder beside `to`, which is removed unless it was renamed. What a killed process left of the same
    name is removed first: it holds no lock.
    """
    made = [folder for folder in (to.parent, *to.parent.parents) if not folder.exists()]
    to.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{TEMP_PREFIX}{to.name}-"
    for stale in to.parent.glob(f"{prefix}{'[0-9a-f]' * 32}"):
        with contextlib.suppress(OSError), _locked(stale):
            try_remove(stale)
    scratch = to.parent / f"{prefix}{uuid.uuid4().hex}"
    try:
        scratch.mkdir()
        with _locked(scratch):
            yield scratch
    finally:
        try_remove(scratch)
        for folder in made:
            with contextlib.suppress(OSError):  # not empty: it holds what was written
                folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder. Raises OSError where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _refuse_private(folder: Path, names: Names, author: Sequence[str]) -> None:
    found = [one for path in sorted(folder.iterdir()) for one in _search(path, names, author)]
    unique = list(dict.fromkeys(found))
    if unique:
        more = f" (and {len(unique) - _MAX_SAID} more)" if len(unique) > _MAX_SAID else ""
        said = "; ".join(f"{one.where}: {one.kind}, '{one.text}'" for one in unique[:_MAX_SAID])
        raise ConfigError(
            f"to: nothing was written, for it would give away {said}{more}; what may be known, name in allow=[...]"
        )


def _search(path: Path, names: Names, author: Sequence[str]) -> Iterator[Finding]:
    if path.suffix == ".safetensors":
        return
    if path.suffix == ".json":
        yield from find_in_json(path.name, json.loads(path.read_bytes()), names, _VOCABULARIES)
        return
    text = path.read_bytes().decode("utf-8", "replace")
    if path.suffix == ".md":
        for own in author:
            text = text.replace(own, "")
        text = _ESCAPED.sub(r"\1", text)
    is_binary = path.suffix not in (".md", ".txt")  # in which bytes may look like a path
    for one in find_private(path.name, text, names):
        if not (is_binary and one.kind == PATH):
            yield one
