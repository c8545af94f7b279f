"""What a disk may forget when the power goes: traced calls replayed, in search of what was published unsynced."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePath

from tracing import Call

_WRITING = ("write", "pwrite64", "writev", "pwritev", "ftruncate")
TEMPORARY = ".tmp"


def violations(calls: Iterable[Call], top: str) -> list[str]:
    """Where, under the directory `top`, the order is not fsync(files), fsync(directory), rename, fsync(parent).

    A file or directory is published when it gets a name without a temporary's part. It must be synced before, all of
    it; and its name must be synced, in the parent, before anything older is removed and before the process ends.
    """
    disk = _Disk(top)
    for call in calls:
        if not call.failed and any(path == top or path.startswith(top + os.sep) for path in call.paths):
            disk.take(call)
    return [*disk.found, *(f"{path}: its new name was never synced" for path in disk.pending)]


class _Disk:
    def __init__(self, top: str) -> None:
        self.top, self.found = top, list[str]()
        self.dirty: set[str] = set()  # files with contents that are not on the disk
        self.changed: dict[str, set[str]] = {}  # directories with names that are not
        self.pending: set[str] = set()  # published, but not under its new name on the disk

    def take(self, call: Call) -> None:
        match call.name:
            case "openat" if "O_CREAT" in call.flags or "O_TRUNC" in call.flags:
                if "O_APPEND" not in call.flags:  # a log, which promises nothing
                    self.dirty.add(call.paths[0])
                    self._changes(call.paths[0])
            case name if name in _WRITING:
                if call.paths[0] in self.dirty or _is_temporary(call.paths[0]):
                    self.dirty.add(call.paths[0])
            case "mkdir" | "mkdirat":
                self._changes(call.paths[0])
                self.changed.setdefault(call.paths[0], set())
            case "fsync" | "fdatasync":
                self._sync(call.paths[0])
            case "rename" | "renameat" | "renameat2":
                self._rename(*call.paths)
            case "unlink" | "unlinkat" | "rmdir":
                self._remove(call.paths[0])

    def _changes(self, path: str) -> None:
        self.changed.setdefault(os.path.dirname(path), set()).add(path)

    def _sync(self, path: str) -> None:
        self.dirty.discard(path)
        names = self.changed.get(path, set())
        self.pending -= names
        names.clear()

    def _rename(self, source: str, target: str) -> None:
        if not _is_temporary(target) and _is_temporary(source):
            inside = source + os.sep
            self.found += [
                f"{target}: {p} was not synced before" for p in self.dirty if (p + os.sep).startswith(inside)
            ]
            for directory, names in self.changed.items():
                if names and (directory + os.sep).startswith(inside):
                    self.found.append(f"{target}: the names in {directory} were not synced before")
            self._nothing_pending(f"{target} came")
            self.pending.add(target)
        elif _is_temporary(target) and not _is_temporary(source):
            self._nothing_pending(f"{source} was taken away")
        self.dirty = {_moved(path, source, target) for path in self.dirty}
        self.changed = {
            _moved(path, source, target): {_moved(name, source, target) for name in names}
            for path, names in self.changed.items()
        }
        self._changes(target)

    def _remove(self, path: str) -> None:
        self._nothing_pending(f"{path} was removed")
        self.dirty.discard(path)
        self.changed.get(os.path.dirname(path), set()).discard(path)
        self.changed.pop(path, None)

    def _nothing_pending(self, event: str) -> None:
        self.found += [f"{path}: its new name was not synced when {event}" for path in self.pending]


def _is_temporary(path: str) -> bool:
    return any(part.startswith(TEMPORARY) or part.endswith(TEMPORARY) for part in PurePath(path).parts)


def _moved(path: str, source: str, target: str) -> str:
    return target + path[len(source) :] if (path + os.sep).startswith(source + os.sep) else path
