"""Where the sound files of a published data set lie, and which of them are for testing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bigmodel.datasets.files.published import fingerprint_files
from bigmodel.errors import DataError


def find_folder(data_dir: str, folders: Sequence[str], how: str) -> Path:
    """The first of `folders` under `data_dir`, or `data_dir` itself where it has the name of one of them.

    Raises:
        DataError: there is none; `how` says how to get the data.
    """
    top = Path(data_dir).expanduser().absolute()
    candidates = [top / folder for folder in folders]
    candidates += [top] if top.name in {candidate.name for candidate in candidates} else []
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise DataError(f"dataset.data_dir: looked for {' or '.join(map(str, candidates))}; {how}")


def list_wavs(folder: Path, pattern: str, form: str) -> list[tuple[Path, re.Match[str]]]:
    """The wav files of a folder, sorted by name, each with what the pattern finds in its name.

    Raises:
        DataError: there are none, or one has another form of name.
    """
    found = []
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".wav" and path.is_file())
    for path in paths:
        match = re.fullmatch(pattern, path.stem + ".wav")
        if match is None:
            raise DataError(f"{path}: its name must have the form {form}; mend or remove it")
        found.append((path, match))
    if not found:
        raise DataError(f"{folder}: holds no wav files; they are named {form}")
    return found


def fingerprint_sounds(paths: Sequence[Path]) -> str:
    """A text that changes with names and sizes."""
    return fingerprint_files((path.name, path.stat().st_size) for path in paths)
