"""Tensors of a checkpoint in files: one for each group of them, or one for each part that a rank holds of a group."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bigmodel.runs.manifest import FIRST_ROWS, sha256
from bigmodel.safe_files import errno_in, fsync_path

SUFFIX = ".safetensors"
_WAIT_WRITE_WAIT = 7  # fs.h: SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER
_SYNCED_AT_ONCE = 1 << 28  # bytes, some seconds of a slow disk
Group = Mapping[str, Tensor]


def write_tensors(
    folder: Path,
    tensors: Mapping[str, Group],
    part: str = "",
    first_rows: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write each group into a file and sync it; return what the manifest says of the files.

    `part` is put into the names, as `.00003-of-00008`; `first_rows` says which row of the whole tensor comes first.

    Raises:
        OSError: the disk is full or refuses.
    """
    files = {}
    for name, group in tensors.items():
        path = folder / f"{name}{part}{SUFFIX}"
        try:
            save_file(_untie_weights(group), path)
        except SafetensorError as error:  # it wraps the system's error in text
            code = errno_in(str(error))
            raise OSError(code, os.strerror(code)) from error
        with contextlib.suppress(PermissionError):  # a file system without modes
            path.chmod(folder.stat().st_mode & 0o666)  # safetensors makes files that only their owner can read
        files[path.name] = fsync_and_hash(path) | ({FIRST_ROWS: first_rows[name]} if first_rows is not None else {})
    return files


def fsync_and_hash(path: Path) -> dict[str, Any]:
    """Sync a file, and return its size and hash.

    A large one is synced in parts, each of which is then read: so that who watches this process can tell a disk that is
    slow from one that is dead.
    """
    size = path.stat().st_size
    if size > _SYNCED_AT_ONCE:
        with path.open("rb", buffering=0) as file:
            for first in range(0, size, _SYNCED_AT_ONCE):
                _sync_range(file.fileno(), first, _SYNCED_AT_ONCE)
                file.seek(first)
                file.read(1)
    fsync_path(path)
    return {"size": size, "sha256": sha256(path)}


def _sync_range(descriptor: int, first: int, count: int) -> None:
    """Have Linux write some bytes of a file to the disk, and wait for it; elsewhere nothing happens.

    What is synced is not safe before `fsync_path`, which then finds little to do.
    """
    import ctypes  # costs a few milliseconds that only large files need to pay

    if (call := getattr(ctypes.CDLL(None), "sync_file_range", None)) is not None:
        call(descriptor, ctypes.c_int64(first), ctypes.c_int64(count), _WAIT_WRITE_WAIT)


class TensorFiles(Mapping[str, Tensor]):
    """A group's tensors by name, read whole or by rows when they are asked for.

    `files` has, by path, the first rows of the tensors that the file has a part of.

    Raises:
        SafetensorError, OSError: a file cannot be read.
        ValueError: the parts of a tensor are not all its rows.
    """

    def __init__(self, files: Mapping[Path, Mapping[str, int]]) -> None:
        self._parts: dict[str, list[tuple[int, int, Any]]] = {}  # first row, the row after the last, file
        for path, first_rows in files.items():
            opened: Any = safe_open(path, "pt")
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                rows, first = opened.get_slice(name).get_shape()[:1], first_rows.get(name, 0)
                self._parts.setdefault(name, []).append((first, first + (rows[0] if rows else 0), opened))
        for name, parts in self._parts.items():
            parts.sort(key=lambda part: part[:2])
            if parts[0][0] or any(before[1] != after[0] for before, after in itertools.pairwise(parts)):
                raise ValueError(f"{name}: rows {[part[:2] for part in parts]} are not those of one tensor")

    def __getitem__(self, name: str) -> Tensor:
        parts = self._parts[name]
        found: Tensor = parts[0][2].get_tensor(name) if len(parts) == 1 else self.rows(name, 0, parts[-1][1])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the whole tensor."""
        parts = self._parts[name]
        shape = parts[0][2].get_slice(name).get_shape()
        return (parts[-1][1], *shape[1:]) if shape else ()

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Return the rows from `first` to `last` - 1."""
        parts = [
            file.get_slice(name)[max(0, first - begin) : max(0, min(last, end) - begin)]
            for begin, end, file in self._parts[name]
            if begin == first == last == 0 or (begin < last and first < end)
        ]
        return torch.cat(parts) if parts else self._parts[name][0][2].get_slice(name)[:0]


def _untie_weights(group: Group) -> dict[str, Tensor]:
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
