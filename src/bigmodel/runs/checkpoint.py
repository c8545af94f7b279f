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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigmodel.errors import StorageError
from bigmodel.runs.checkpoint_path import checkpoint_path, has_checkpoint_prefix, step_of
from bigmodel.runs.checkpoint_state import check_state
from bigmodel.runs.manifest import is_passing, read_manifest, sha256, verify, write_manifest
from bigmodel.safe_files import (
    TEMP_PREFIX,
    entries,
    errno_in,
    fsync_directory,
    fsync_path,
    own_folder,
    read_text,
    refuse_foreign_folder,
    try_remove,
    write_json,
)

_TENSORS = ".safetensors"
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
) -> Path:
    """Save a checkpoint, then update the files that point at it, then remove older ones.

    `state["best"]["step"]`, the best so far if there is one, is never removed. A `passing` checkpoint was not due: it
    is saved because the run is stopped, does not count among the newest `keep`, and goes with the next save.

    Raises:
        OSError: the disk is full or refuses; nothing that was there before is lost.
    """
    path = save(root, step, tensors, state, passing)
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
) -> Path:
    """Commit one checkpoint under `root` as `step-00000000`, in place of an older one of the same step.

    Raises:
        OSError: the disk is full or refuses; nothing that was there before is lost.
    """
    own_folder(root)
    target = checkpoint_path(root, step)
    scratch, replaced = (root / f"{TEMP_PREFIX}{uuid.uuid4().hex}" for _ in range(2))
    try:
        scratch.mkdir()
        files = {}
        for name, group in tensors.items():
            path = scratch / f"{name}{_TENSORS}"
            save_file(_untie_weights(group), path)
            with contextlib.suppress(PermissionError):  # a file system without modes
                path.chmod(scratch.stat().st_mode & 0o666)  # safetensors makes files that only their owner can read
            files[path.name] = _fsync_and_hash(path)
        path = scratch / "state.json"
        path.write_text(json.dumps(state), encoding="utf-8")
        files[path.name] = _fsync_and_hash(path)
        write_manifest(scratch, step, files, passing)
        fsync_directory(scratch)
        if os.path.lexists(target):  # the run fell back to an older checkpoint and reached this step again
            os.rename(target, replaced)
        os.rename(scratch, target)
        fsync_directory(root)
        try_remove(replaced)
    except SafetensorError as error:  # it wraps the system's error in text
        _roll_back(scratch, replaced, target)
        code = errno_in(str(error))
        raise OSError(code, os.strerror(code)) from error
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


def load(path: Path) -> Checkpoint:
    """Load one checkpoint after comparing every file with the manifest's size and SHA-256.

    Raises:
        StorageError: a file is missing, altered or unreadable; the message names it.
    """
    manifest = verify(path)
    try:
        files = [name for name in manifest["files"] if name.endswith(_TENSORS)]
        tensors = {name.removesuffix(_TENSORS): load_file(path / name) for name in files}
        state = json.loads(read_text(path / "state.json"))
    except OSError as error:
        raise StorageError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
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


def load_newest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """Load the newest checkpoint that verifies, and return a warning for each newer one that does not."""
    warnings: list[str] = []
    for path in list_checkpoints(root):
        try:
            return load(path), [f"{line}; falling back to the checkpoint before it" for line in warnings]
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


def _fsync_and_hash(path: Path) -> dict[str, Any]:
    fsync_path(path)
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def _untie_weights(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors that share no storage, as safetensors requires; tied weights are copied."""
    seen: set[int] = set()
    result = {}
    for name, tensor in group.items():
        tensor = tensor.detach().contiguous()
        if tensor.numel() and tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        result[name] = tensor
    return result
