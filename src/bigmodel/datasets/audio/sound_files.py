"""The wav files of a published data set, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bigmodel.datasets.files.published import fingerprint_files
from bigmodel.errors import DataError


def list_wavs(folder: Path, pattern: str, form: str) -> list[tuple[Path, re.Match[str]]]:
    """List the wav files of a folder, sorted by name, each with the match of the pattern on its name.

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
    """Hash of the files' names and sizes."""
    return fingerprint_files((path.name, path.stat().st_size) for path in paths)
