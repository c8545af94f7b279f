"""Assign a GPU to each job: the process that uses a GPU locks its file, which every sweep on the machine sees.

The kernel drops the lock when its holder ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigmodel.errors import StorageError

_LOCKS = "/tmp/bigmodel-gpus"  # one place for all users, sessions and schedulers of a machine, so not $TMPDIR
_TURN = "turn"  # file whose lock is held by the process that collects several
_LOOK_S = 0.5
_IDLE_MIB, _IDLE_BUSY = 1024.0, 10.0  # a display or a driver takes some of a GPU that nobody computes on


@dataclass(frozen=True)
class Gpu:
    """`name` is what CUDA_VISIBLE_DEVICES takes; memory in use is in MiB, `busy` the GPU's utilization in percent."""

    name: str
    used_mib: float
    busy: float = 0.0


def visible_gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs this process may use, in torch's order. Asks nvidia-smi: torch opens a context on each."""
    return parse_nvidia_smi(_nvidia_smi(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse_nvidia_smi(smi: str, allowed: str | None) -> list[Gpu]:
    """Parse nvidia-smi's index,uuid,MiB,% lines; keep the indices or UUIDs that CUDA_VISIBLE_DEVICES allows."""
    by_name = _by_name(smi)
    if allowed is None:
        return list(dict.fromkeys(by_name.values()))
    names = [name.strip() for name in allowed.split(",")]
    return [by_name.get(name, Gpu(name, 0.0)) for name in names if name in by_name or name.startswith(("GPU-", "MIG-"))]


def least_used(count: int) -> int:
    """Return torch's index of the GPU, out of `count`, with the least memory in use, then the least work."""
    return 0 if count == 1 else index_of_least_used(_nvidia_smi(), os.environ.get("CUDA_VISIBLE_DEVICES"), count)


def index_of_least_used(smi: str, allowed: str | None, count: int) -> int:
    """As `least_used`, from nvidia-smi's lines. torch counts only the GPUs that CUDA_VISIBLE_DEVICES lists, in that
    order; nvidia-smi counts them all.
    """
    by_name = _by_name(smi)
    names = allowed.split(",") if allowed else [str(index) for index in range(count)]
    known = [by_name.get(name.strip()) for name in names]
    return min(
        range(count), key=lambda i: (float("inf"), 0.0) if (gpu := known[i]) is None else (gpu.used_mib, gpu.busy)
    )


def _nvidia_smi() -> str:
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.used,utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _by_name(smi: str) -> dict[str, Gpu]:
    """Index GPUs by index and by UUID."""
    found: dict[str, Gpu] = {}
    for line in smi.strip().splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4:
            found[fields[0]] = found[fields[1]] = Gpu(fields[1], _number(fields[2]), _number(fields[3]))
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return 0.0


def acquire_idle(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs that nobody uses or holds, and hold them until this process ends.

    Raises:
        StorageError: the locks' directory is not safe to use.
    """
    unused = [gpu for gpu in gpus if gpu.used_mib < _IDLE_MIB and gpu.busy < _IDLE_BUSY]
    return [gpu for gpu in unused if _try_lock(_directory() / gpu.name.replace("/", "_"))]


def acquire(gpus: Sequence[Gpu], count: int = 1) -> list[Gpu]:
    """Wait for GPUs that no process holds, the least used first, and hold them until this process ends.

    Raises:
        StorageError: the locks' directory is not safe to use.
    """
    directory = _directory()
    held: list[Gpu] = []
    turn = None
    while count > 1 and turn is None:  # two that collect GPUs could each hold what the other waits for
        if (turn := _lock(directory / _TURN)) is None:
            time.sleep(_LOOK_S)
    while True:
        for gpu in sorted((gpu for gpu in gpus if gpu not in held), key=lambda gpu: gpu.used_mib):
            if _try_lock(directory / gpu.name.replace("/", "_")):
                held.append(gpu)
            if len(held) == count:
                if turn is not None:
                    os.close(turn)
                return held
        time.sleep(_LOOK_S)


def _directory() -> Path:
    path = Path(os.environ.get("BIGMODEL_GPU_LOCKS", _LOCKS))
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o1777)  # everybody's locks, but only their makers may remove them
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or (found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX):
        raise StorageError(f"{path}: not a directory that is safe to keep locks in; remove it")
    return path


def _try_lock(path: Path) -> bool:
    """Return whether this process now holds the file's lock, until it ends."""
    descriptor = _lock(path)
    if descriptor is None:
        return False
    os.register_at_fork(after_in_child=lambda: os.close(descriptor))  # a data worker holds nothing
    return True


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the file's lock, None if another does; the file is only locked, never written."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o644)
        with contextlib.suppress(PermissionError):  # another user was faster
            os.fchmod(descriptor, 0o644)  # whatever the umask: readable for all is enough to lock it
    except OSError as error:
        raise StorageError(f"{path}: cannot be locked: {error.strerror}; remove it") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:  # it would be waited for without end
        os.close(descriptor)
        raise StorageError(
            f"{path}: cannot be locked ({error.strerror}); set BIGMODEL_GPU_LOCKS to a folder that has locks"
        ) from error
    return descriptor


def rank_count(device: Mapping[str, Any]) -> int:
    """Return how many ranks a job has whose config has this `device`; `auto` is one in a sweep."""
    count = device.get("count", 1)
    return 1 if count == "auto" else int(count)
