"""Files, folders and run directories that a typed path can be continued with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

_OUTPUTS = "outputs/"
_MOST_ENTRIES = 5000  # of a folder that are looked at


def complete_path(typed: str, *, folders_only: bool = False) -> list[str]:
    """Return the entries of the folder that a typed path names; folders end in a slash."""
    folder, _, start = typed.rpartition("/")
    folder += "/" if "/" in typed else ""
    found = []
    for entry in _entries(folder):
        hidden = entry.name.startswith(".") and not start.startswith(".")
        if not entry.name.startswith(start) or hidden or not entry.name.isprintable():
            continue
        if _is_folder(entry):
            found.append(f"{folder}{entry.name}/")
        elif not folders_only:
            found.append(f"{folder}{entry.name}")
    return sorted(found)


def complete_run(typed: str) -> list[str]:
    """Return the runs, and the folders on the way to them, that a typed path can be continued with.

    Without a path they are looked for under outputs/. A folder that holds nothing but another is passed through, unless
    it is a sweep, which may be meant itself.
    """
    if _OUTPUTS.startswith(typed) and Path(_OUTPUTS).is_dir():
        typed = _OUTPUTS
    from bigmodel.runs.records import is_run, is_sweep  # loads a parser of YAML, which other paths need not wait for

    found = complete_path(typed, folders_only=True)
    while len(found) == 1 and not any(_holds(kind, found[0]) for kind in (is_run, is_sweep)):
        below = complete_path(found[0], folders_only=True)
        if not below:
            break
        found = below
    runs = [path.rstrip("/") for path in found if _holds(is_run, path)]
    return runs or found


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            for _, entry in zip(range(_MOST_ENTRIES), entries, strict=False):
                yield entry
    except (OSError, ValueError):
        return


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _holds(is_kind: Callable[[Path], bool], path: str) -> bool:
    try:
        return is_kind(Path(path).expanduser())
    except (OSError, RuntimeError):  # a folder of another user; no such user
        return False
