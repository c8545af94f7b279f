"""Where a dataset's files are looked for: one rule for paths that users give, and one for published data.

A relative path that a user gives lies in `data_dir`, or else in the current directory; one that begins with ./ in the
latter. If it is in both, as two files, it is refused: to choose would be a guess.

Published data is found by its name in `data_dir`, in the folders that its authors or its dataset use, or in these
below `data_dir`/shared.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.errors import DataError
from bigmodel.safe_files import kind_of

PATH_KEYS = ("root", "file", "path")  # of datasets that have no `data_dir`: where their files are
_BELOW = ("", "*/", "*/*/")  # folders of `data_dir`
_SHARED = "shared"


def candidate_paths(data_dir: str | Path, names: Sequence[str], folders: Sequence[str] = ()) -> list[Path]:
    """Return the absolute paths at which a published file or folder of one of these names may lie, the best first.

    These are NAME, FOLDER/NAME and shared/FOLDER/NAME in `data_dir`, and `data_dir` itself if its end is NAME.
    """
    top = Path(data_dir).expanduser().absolute()
    bases = [top, *(top / folder for folder in folders), *(top / _SHARED / folder for folder in folders)]
    is_one = any(top.parts[-len(Path(name).parts) :] == Path(name).parts for name in names)
    return [base / name for base in bases for name in names] + ([top] if is_one else [])


def find_data(
    data_dir: str | Path, name: str, folders: Sequence[str] = (), *, advice: str, is_folder: bool = False
) -> Path:
    """Return the published file, or folder, of this name: the first of `candidate_paths` that is there.

    Raises:
        DataError: none is; `advice` says how to get the data.
    """
    places = candidate_paths(data_dir, [name], folders)
    found = next((place for place in places if (place.is_dir() if is_folder else place.is_file())), None)
    if found is None:
        raise not_found("data_dir", name, [place.parent for place in places], advice)
    return found


def find_file(
    root: str,
    name: str,
    key: str,
    source: str | None,
    folders: Sequence[str] | None = None,
    *,
    or_folder: bool = False,
) -> Path:
    """Return the file that a user names, in `root`, in one of its `folders` or those in its folder shared, or else
    here.

    Without `folders`, those up to two below `root` are searched. With `or_folder` a folder is found too, and first.

    Raises:
        DataError: there is none, and `source` says where to get it; or there are two.
    """
    top = Path(root).expanduser().absolute()
    path = Path(name).expanduser()
    here = path if path.is_absolute() else Path.cwd() / path
    if path.is_absolute() or _starts_here(name):
        places = [here]
        searched = [here.parent]
    elif folders is None:
        places = [file for below in _BELOW if name for file in sorted(top.glob(f"{below}{glob.escape(name)}"))]
        places, searched = [*places, here], [top, Path(f"{top}/*"), Path(f"{top}/*/*"), here.parent]
    else:
        places = [*candidate_paths(top, [name], folders), here]
        searched = [place.parent for place in places]
    found = next((place for place in places if or_folder and place.is_dir()), None)
    if found is not None:
        return found
    found = next((place for place in places if place.is_file()), None)
    if found is None and (folder := next((place for place in places if place.is_dir()), None)) is not None:
        raise DataError(f"dataset.{key}: {folder} is a folder; name a file in it, or write its parts into one file")
    if found is None and (odd := next((place for place in places if os.path.lexists(place)), None)) is not None:
        what = f"{kind_of(odd.stat().st_mode)}, not a file" if odd.exists() else "a link to no file"
        raise DataError(f"dataset.{key}: {odd} is {what}")
    if found is None:
        raise not_found(key, name, searched, f"get it from {source}" if source else "")
    _refuse_two(found, here, key)
    return found


def not_found(key: str, name: str, searched: Sequence[Path], advice: str = "") -> DataError:
    """Return the error of data that is in none of the places that were searched."""
    *first, last = dict.fromkeys(map(str, searched))
    where = f"{', '.join(first)} or {last}" if first else last
    return DataError(f"dataset.{key}: found no '{name}' in {where}{f'; {advice}' if advice else ''}")


def find_beside_shared(folder: str | Path) -> Path:
    """Return the folder, or where it is not there, the one of the same name in the folder shared beside it."""
    own = Path(folder).expanduser()
    shared = own.parent / _SHARED / own.name
    return shared if not own.is_dir() and shared.is_dir() else own


def resolve_paths(dataset: Mapping[str, Any], data_dir: str) -> dict[str, str]:
    """Return paths of a dataset's node that lie in `data_dir`, by dotted key; those in the current directory stay.

    Raises:
        DataError: a path is there in both, as two files or folders.
    """
    changed = {}
    for key in PATH_KEYS:
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
