"""Walk the files below a folder, by one rule for training and prediction.

Passed over, and counted: other suffixes, hidden names, what operating systems and archives leave behind (`@eaDir`,
`__MACOSX`, `Thumbs.db`), what is no regular file, and links to a folder that is walked anyway.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Set

from bigmodel.errors import DataError
from bigmodel.formatting import format_count

_LEFT_BEHIND = frozenset(
    {"@eadir", "@recycle", "#recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)
_SHOWN = 6  # kinds of files in a line


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or is not a person's own."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def walk_files(
    folder: str | os.PathLike[str],
    suffixes: Set[str],
    passed: Counter[str],
    is_one: Callable[[str], bool] | None = None,
) -> Iterator[str]:
    """Yield paths of files with one of the suffixes in any case, a folder's own before those below it, each sorted by
    name.

    Files without any suffix are asked of `is_one`. Links to files and folders are followed, each folder once. A link
    to nothing counts as a file, so that whoever reads it can say so. `passed` counts the rest by kind.

    Raises:
        DataError: a folder cannot be read.
    """
    root = os.path.realpath(folder)
    seen: set[str] = set()
    left = [os.fspath(folder)]
    while left:
        directory = left.pop()
        files, folders = _list_directory(directory)
        for name in files:
            path = os.path.join(directory, name)
            kind = _kind(name, path, suffixes, is_one)
            if kind is None:
                yield path
            else:
                passed[kind] += 1
        below = []
        for name in folders:
            path = os.path.join(directory, name)
            if is_hidden(name):
                passed["hidden"] += sum(len(names) for _, _, names in os.walk(path))
            elif _is_walked_anyway(path, root, seen):
                passed["linked folder that is walked anyway"] += 1
            else:
                below.append(path)
        left += reversed(below)


def describe_skipped(passed: Counter[str], where: str = "") -> list[str]:
    """No line, or one: `40 files passed over: 38 .avif, 2 hidden`."""
    if not passed:
        return []
    total = passed.total()
    kinds = passed.most_common()
    shown = ", ".join(kind if len(kinds) == 1 else f"{count:,} {kind}" for kind, count in kinds[:_SHOWN])
    rest = f" and {format_count(len(kinds) - _SHOWN, 'other kind')}" if len(kinds) > _SHOWN else ""
    return [f"{where}{format_count(total, 'file')} passed over: {shown}{rest}"]


def _list_directory(directory: str) -> tuple[list[str], list[str]]:
    try:
        with os.scandir(directory) as entries:
            pairs = [(entry.name, _is_folder(entry)) for entry in entries]
    except OSError as error:
        raise DataError(f"{directory}: cannot be read: {error.strerror or error}") from error
    return sorted(name for name, is_dir in pairs if not is_dir), sorted(name for name, is_dir in pairs if is_dir)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether a path is a folder or a link to one; a link to itself is neither."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _kind(name: str, path: str, suffixes: Set[str], is_one: Callable[[str], bool] | None) -> str | None:
    """Return why a file is passed over, in a word, or None if it is not."""
    suffix = os.path.splitext(name)[1].lower()
    if is_hidden(name):
        return "hidden"
    if suffix and suffix not in suffixes:
        return suffix if suffix.isprintable() and len(suffix) < 20 else "other"
    if not os.path.isfile(path) and os.path.lexists(path) and os.path.exists(path):
        return "no regular file"
    if suffix:
        return None
    return None if is_one is not None and is_one(path) else "without a suffix"


def _is_walked_anyway(path: str, root: str, seen: set[str]) -> bool:
    """Return whether a link's folder is in the tree under `root`, holds it, or has been followed before."""
    real = os.path.realpath(path)
    within_link = not real.startswith(root + os.sep)  # a folder under one that was linked to
    if not os.path.islink(path) and not within_link:
        return False
    if os.path.islink(path) and (real == root or real.startswith(root + os.sep) or root.startswith(real + os.sep)):
        return True
    if real in seen:
        return True
    seen.add(real)
    return False
