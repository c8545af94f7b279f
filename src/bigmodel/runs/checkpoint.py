"""Checkpoints on disk: committed whole or not at all, every byte hashed, no pickle.

A save is written into a temporary directory, each file synced, the manifest last; then the directory is synced, renamed
into place, and its parent synced. Whoever is killed, or loses power, at any point leaves the older checkpoints intact.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
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
from bigmodel.safe_files import (
    TEMP_PREFIX,
    entries,
    errno_in,
    fsync_directory,
    fsync_path,
    open_regular,
    own_folder,
    read_text,
    refuse_foreign_folder,
    refuse_large,
    try_remove,
    write_json,
)

SCHEMA = 1
_MANIFEST = "MANIFEST.json"
_BUSY = (errno.EBUSY, errno.ESTALE, errno.ENOTEMPTY)  # NFS, where somebody reads a checkpoint
_LARGEST_MANIFEST = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory: tensors by file name without its ending, and the JSON state."""

    path: Path
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Those that count as the result: the average if there is one."""
        return self.tensors.get("ema") or self.tensors["model"]


def commit(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep: int,
    passing: bool = False,
) -> Path:
    """All that a save does on the disk: the checkpoint, the files that point at it, then the removal of older ones.

    `state["best"]["step"]`, the best so far if there is one, is never removed. A `passing` checkpoint was not due: it
    is there because the run was stopped, does not count among the newest `keep`, and goes with the next save.

    Raises:
        OSError: as `save`.
    """
    path = save(root, step, tensors, state, passing)
    update_pointers_and_prune(root, step, state["best"], keep)
    return path


def update_pointers_and_prune(root: Path, step: int, best: Mapping[str, Any], keep: int) -> None:
    """Do what follows the commit of `step`, or what a kill left undone of it: pointers first, then the removals."""
    pointers = {"last.json": {"step": step}} | ({"best.json": {k: best[k] for k in ("step", "value")}} if best else {})
    for name, value in pointers.items():
        if not _holds(root / name, value):
            write_json(root / name, value)
    prune(root, keep, best.get("step"), step)


def _holds(path: Path, value: object) -> bool:
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
    """Commit one checkpoint under `root` as `step-00000000`; an older one of the same step is replaced.

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
            path = scratch / f"{name}.safetensors"
            save_file(_untie_weights(group), path)
            files[path.name] = _fsync_and_hash(path)
        path = scratch / "state.json"
        path.write_text(json.dumps(state), encoding="utf-8")
        files[path.name] = _fsync_and_hash(path)
        mark = {"passing": True} if passing else {}
        write_json(scratch / _MANIFEST, {"schema": SCHEMA, "step": step, "files": files, **mark})
        fsync_directory(scratch)
        if os.path.lexists(target):  # the same step again, after falling back to an older one
            os.rename(target, replaced)
        os.rename(scratch, target)
        fsync_directory(root)
        try_remove(replaced)
    except SafetensorError as error:  # it wraps the system's error in text
        _roll_back(scratch, replaced, target)
        number = errno_in(str(error))
        raise OSError(number, os.strerror(number)) from error
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
    """Read one checkpoint, holding every file against the manifest's size and SHA-256.

    Raises:
        StorageError: a file is missing, altered or unreadable; the message names it.
    """
    manifest = verify(path)
    try:
        tensors = {name[:-12]: load_file(path / name) for name in manifest["files"] if name.endswith(".safetensors")}
        state = json.loads(read_text(path / "state.json"))
    except (SafetensorError, ValueError, KeyError, OSError, RecursionError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    check_state(path, state, manifest["step"])
    return Checkpoint(path, tensors, state)


def verify(path: Path) -> dict[str, Any]:
    """Hold a checkpoint's files against its manifest, and return that.

    Raises:
        StorageError: what does not agree, by name.
    """
    try:
        manifest: dict[str, Any] = json.loads(read_text(path / _MANIFEST, _LARGEST_MANIFEST))
        files: dict[str, dict[str, Any]] = manifest["files"]
        expected = [(name, int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()]
        schema = manifest["schema"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        why = "cannot be read" if isinstance(error, PermissionError) else "missing or damaged"
        raise StorageError(f"{path / _MANIFEST}: {why}, so this is not a whole checkpoint ({error!r})") from error
    if path.is_dir() and step_of(path) not in (None, manifest.get("step")):
        raise StorageError(f"{path}: holds step {manifest.get('step')}, not what its name says")
    if not {"state.json", "model.safetensors"} <= files.keys():
        raise StorageError(f"{path / _MANIFEST}: lists no state or no model, so this is not a whole checkpoint")
    if schema != SCHEMA:
        raise StorageError(f"{path}: written as schema {schema}; this version reads {SCHEMA}")
    for name, size, _ in expected:
        file = path / name
        if Path(name).name != name or file.is_symlink() or not file.is_file():
            raise StorageError(f"{file}: missing from the checkpoint")
        if file.stat().st_size != size:
            raise StorageError(f"{file}: {file.stat().st_size} bytes, not the {size} that were written")
    try:
        refuse_large({path / name: size for name, size, _ in expected})
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    for name, _, digest in expected:
        try:
            found = _sha256(path / name)
        except OSError as error:
            raise StorageError(f"{path / name}: cannot be read: {error.strerror or error}") from error
        if found != digest:
            raise StorageError(f"{path / name}: its contents are not those that were written (SHA-256 differs)")
    return manifest


def list_checkpoints(root: Path) -> list[Path]:
    """Committed checkpoints, newest first; StorageError where the folder may not be read. A link is none."""
    steps = {path: step for path in entries(root) if (step := step_of(path)) is not None}
    return sorted(
        (path for path in steps if path.is_dir() and not path.is_symlink()), key=steps.__getitem__, reverse=True
    )


def load_newest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and a line for each newer one that does not."""
    passed_over: list[str] = []
    for path in list_checkpoints(root):
        try:
            return load(path), passed_over
        except StorageError as error:
            passed_over.append(f"{error}; falling back to the checkpoint before it")
    passed_over += [
        f"{p}: a link, not a checkpoint of this run"
        for p in root.glob("*")
        if has_checkpoint_prefix(p) and p.is_symlink()
    ]
    return None, passed_over


def newest_state(root: Path) -> Mapping[str, Any] | None:
    """The JSON state of the newest checkpoint whose state verifies, without a look at its tensors; None without one."""
    for path in list_checkpoints(root):
        try:
            manifest = json.loads(read_text(path / _MANIFEST, _LARGEST_MANIFEST))
            if _sha256(path / "state.json") == manifest["files"]["state.json"]["sha256"]:
                state = json.loads(read_text(path / "state.json"))
                check_state(path, state, manifest["step"])
                if isinstance(state, dict):
                    return state
        except (OSError, ValueError, LookupError, TypeError, RecursionError, StorageError):
            continue
    return None


def prune(root: Path, keep: int, keep_step: int | None, newest_step: int | None = None) -> None:
    """Remove all but the newest `keep` (two at least) and the step `also`; stale temporaries go too.

    With `upto`, newer steps do not count and stay: they were passed over, being damaged, and will be replaced. What a
    stopped run has saved out of turn does not count either, and stays while it is the newest.
    """
    refuse_foreign_folder(root)
    steps = {path: step_of(path) or 0 for path in list_checkpoints(root)}
    known = [path for path, step in steps.items() if newest_step is None or step <= newest_step]
    counted = [path for path in known if not _is_passing(path)]
    kept = {*known[:1], *counted[: max(keep, 2)]}
    for path in known:
        if path not in kept and steps[path] != keep_step:
            doomed = root / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
            try:
                os.rename(path, doomed)  # first out of sight: a half-removed checkpoint must not look like one
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
                continue  # the next save tries again
            try_remove(doomed)
    remove_stale_temporaries(root)


def _is_passing(path: Path) -> bool:
    """Whether a checkpoint was saved out of turn."""
    try:
        return bool(json.loads(read_text(path / _MANIFEST, _LARGEST_MANIFEST)).get("passing"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def remove_stale_temporaries(root: Path) -> None:
    """Remove what an interrupted save or removal left behind. Only for whoever holds the run's lock."""
    for path in root.glob(f"{TEMP_PREFIX}*"):
        try_remove(path)


def _fsync_and_hash(path: Path) -> dict[str, Any]:
    fsync_path(path)
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _untie_weights(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, and with storage of its own where two names share one (tied weights): the format asks for both."""
    seen: set[int] = set()
    result = {}
    for name, tensor in group.items():
        tensor = tensor.detach().contiguous()
        if tensor.numel() and tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        result[name] = tensor
    return result
