"""Where a dataset's paths start: a relative one in `data_dir`, or else in the current directory; ./ means the latter.

One that is there in both, as two files, is refused: to choose would be a guess.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.errors import DataError

_KEYS = ("root", "file", "path")  # of datasets that know no `data_dir`
_BELOW = ("", "*/", "*/*/")  # folders of `data_dir`


def find_file(root: str, name: str, key: str, source: str | None, folders: Sequence[str] = _BELOW) -> Path:
    """The file of this name in the folder `root`, or in one up to two below it, or in the current directory.

    Raises:
        DataError: there is none, and `source` says where to get it; or there are two.
    """
    top, path = Path(root).expanduser().absolute(), Path(name).expanduser()
    if path.is_absolute():
        found, here = path, path
    else:
        patterns = (sorted(top.glob(f"{folder}{glob.escape(name)}")) for folder in folders if name)
        files = (file for matches in patterns for file in matches if file.is_file())
        here = Path.cwd() / path
        found = here if _starts_here(name) else next(files, here)
    if not found.is_file():
        where = f"; get it from {source}" if source else ""
        also = "" if here.parent == top else f", nor in {Path.cwd()}"
        raise DataError(f"dataset.{key}: there is no '{name}' in {top} or in a folder up to two below it{also}{where}")
    _refuse_two(found, here, key)
    return found


def resolve_paths(dataset: Mapping[str, Any], data_dir: str) -> dict[str, str]:
    """Paths of a dataset's node that lie in `data_dir`, by dotted key; those in the current directory stay as they are.

    Raises:
        DataError: a path is there in both, as two files or folders.
    """
    changed = {}
    for key in _KEYS:
        value = dataset.get(key)
        if not isinstance(value, str) or not value or value == data_dir or _starts_here(value):
            continue
        path = Path(value).expanduser()
        below = Path(data_dir).expanduser() / path
        if path.is_absolute() or not _exists(below):
            continue
        if _exists(path):
            _refuse_two(below.absolute(), path.absolute(), key)
        else:
            changed[f"dataset.{key}"] = str(below)
    return changed


def _starts_here(name: str) -> bool:
    return name.split(os.sep)[0] in (".", "..")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name
        return False


def _refuse_two(found: Path, here: Path, key: str) -> None:
    if found != here and here.exists() and not os.path.samefile(found, here):
        raise DataError(
            f"dataset.{key}: there are two, {found} and {here}; give the full path, or ./ for the current directory"
        )
