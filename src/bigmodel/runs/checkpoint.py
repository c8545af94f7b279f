"""Checkpoints on disk: committed whole or not at all, every byte hashed, no pickle.

`save` writes into a temporary directory, syncs each file, writes the manifest last, syncs the directory, renames it
into place and syncs its parent. A kill or a power loss at any point leaves the older checkpoints intact.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from bigmodel.errors import StorageError
from bigmodel.runs.checkpoint_path import checkpoint_path, has_checkpoint_prefix, step_of
from bigmodel.runs.checkpoint_state import check_state
from bigmodel.runs.manifest import FIRST_ROWS, is_passing, read_manifest, sha256, verify, write_manifest
from bigmodel.runs.tensor_files import SUFFIX, TensorFiles, fsync_and_hash, write_tensors
from bigmodel.safe_files import (
    TEMP_PREFIX,
    entries,
    fsync_directory,
    own_folder,
    read_text,
    refuse_foreign_folder,
    try_remove,
    write_json,
)

Write = Callable[[Path, Mapping[str, Mapping[str, Tensor]]], Mapping[str, Mapping[str, Any]]]
_BUSY = (errno.EBUSY, errno.ESTALE, errno.ENOTEMPTY)  # NFS answers so while another process reads the checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory: tensors by file name without suffix, and the JSON state."""

    path: Path
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights to evaluate and export: the EMA if there is one, else the model's."""
        return self.tensors.get("ema") or self.tensors["model"]


def commit(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep: int,
    passing: bool = False,
    write: Write = write_tensors,
) -> Path:
    """Save a checkpoint, then update the files that point at it, then remove older ones.

    `state["best"]["step"]`, the best so far if there is one, is never removed. A `passing` checkpoint was not due: it
    is saved because the run is stopped, does not count among the newest `keep`, and goes with the next save.

    Raises:
        OSError: the disk is full or refuses; nothing that was there before is lost.
    """
    path = save(root, step, tensors, state, passing, write)
    update_pointers_and_prune(root, step, state["best"], keep)
    return path


def update_pointers_and_prune(root: Path, step: int, best: Mapping[str, Any], keep: int) -> None:
    """Write last.json and best.json, then delete old checkpoints. Safe to repeat after a kill."""
    pointers = {"last.json": {"step": step}}
    if best:
        pointers["best.json"] = {key: best[key] for key in ("step", "value")}
    for name, value in pointers.items():
        if not _contains(root / name, value):
            write_json(root / name, value)
    prune(root, keep, best.get("step"), step)


def _contains(path: Path, value: object) -> bool:
    try:
        return not path.is_symlink() and bool(json.loads(read_text(path)) == value)
    except (OSError, ValueError, RecursionError):
        return False


def save(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    passing: bool = False,
    write: Write = write_tensors,
) -> Path:
    """Commit one checkpoint under `root` as `step-00000000`, in place of an older one of the same step.

    `write` writes the tensors into a folder and returns the manifest's entries of the files.

    Raises:
        OSError: the disk is full or refuses; nothing that was there before is lost.
    """
    own_folder(root)
    target = checkpoint_path(root, step)
    scratch, replaced = (root / f"{TEMP_PREFIX}{uuid.uuid4().hex}" for _ in range(2))
    try:
        scratch.mkdir()
        files = dict(write(scratch, tensors))
        path = scratch / "state.json"
        path.write_text(json.dumps(state), encoding="utf-8")
        files[path.name] = fsync_and_hash(path)
        write_manifest(scratch, step, files, passing)
        fsync_directory(scratch)
        if os.path.lexists(target):  # the run fell back to an older checkpoint and reached this step again
            os.rename(target, replaced)
        os.rename(scratch, target)
        fsync_directory(root)
        try_remove(replaced)
    except BaseException:
        _roll_back(scratch, replaced, target)
        raise
    return target


def _roll_back(scratch: Path, replaced: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        if os.path.lexists(replaced) and not os.path.lexists(target):
            os.rename(replaced, target)
    for path in (scratch, replaced):
        try_remove(path)


def load(path: Path, whole: bool = True, by_hash: bool = True) -> Checkpoint:
    """Load one checkpoint after comparing every file with the manifest's size and SHA-256.

    Without `whole` tensors are read when they are asked for, whole or by rows. Without `by_hash` another rank has
    compared the contents.

    Raises:
        StorageError: a file is missing, altered or unreadable; the message names it.
    """
    manifest = verify(path, by_hash, fits_memory=whole)
    try:
        groups: dict[str, dict[Path, Mapping[str, int]]] = {}
        for name, entry in manifest["files"].items():
            if name.endswith(SUFFIX):
                groups.setdefault(name.partition(".")[0], {})[path / name] = entry.get(FIRST_ROWS, {})
        tensors: dict[str, Mapping[str, Tensor]] = {name: TensorFiles(files) for name, files in groups.items()}
        if whole:
            tensors = {name: dict(group) for name, group in tensors.items()}
        state = json.loads(read_text(path / "state.json"))
    except OSError as error:
        raise StorageError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    check_state(path, state, manifest["step"])
    return Checkpoint(path, tensors, state)


def list_checkpoints(root: Path) -> list[Path]:
    """List committed checkpoints, newest first; links do not count.

    Raises:
        StorageError: the folder may not be read.
    """
    steps = {path: step for path in entries(root) if (step := step_of(path)) is not None}
    found = [path for path in steps if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=steps.__getitem__, reverse=True)


def load_newest(root: Path, whole: bool = True) -> tuple[Checkpoint | None, list[str]]:
    """Load the newest checkpoint that verifies, as `load`; return a warning for each newer one that does not."""
    warnings: list[str] = []
    for path in list_checkpoints(root):
        try:
            return load(path, whole), [f"{line}; falling back to the checkpoint before it" for line in warnings]
        except StorageError as error:
            warnings.append(str(error))
    links = [path for path in root.glob("*") if has_checkpoint_prefix(path) and path.is_symlink()]
    warnings += [f"{path}: a link, not a checkpoint of this run" for path in links]
    return None, warnings


def newest_state(root: Path) -> Mapping[str, Any] | None:
    """Return the JSON state of the newest checkpoint whose state verifies, or None; tensors are not read."""
    for path in list_checkpoints(root):
        try:
            manifest = read_manifest(path)
            if sha256(path / "state.json") == manifest["files"]["state.json"]["sha256"]:
                state = json.loads(read_text(path / "state.json"))
                check_state(path, state, manifest["step"])
                return dict(state)
        except (OSError, ValueError, LookupError, TypeError, RecursionError, StorageError):
            continue
    return None


def prune(root: Path, keep: int, keep_step: int | None, newest_step: int | None = None) -> None:
    """Remove all checkpoints but the newest `keep` (two at least) and `keep_step`; stale temporaries go too.

    Steps after `newest_step` do not count and stay: they are damaged, and will be replaced. A passing checkpoint does
    not count either, and stays while it is the newest.
    """
    refuse_foreign_folder(root)
    steps = {path: step_of(path) or 0 for path in list_checkpoints(root)}
    known = [path for path, step in steps.items() if newest_step is None or step <= newest_step]
    counted = [path for path in known if not is_passing(path)]
    kept = {*known[:1], *counted[: max(keep, 2)]}
    for path in known:
        if path not in kept and steps[path] != keep_step:
            doomed = root / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
            try:
                os.rename(path, doomed)  # first, so that a half-removed checkpoint never looks like a whole one
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
                continue  # the next save tries again
            try_remove(doomed)
    remove_stale_temporaries(root)


def remove_stale_temporaries(root: Path) -> None:
    """Remove what an interrupted save or removal left behind. Call only while holding the run's lock."""
    for path in root.glob(f"{TEMP_PREFIX}*"):
        try_remove(path)
