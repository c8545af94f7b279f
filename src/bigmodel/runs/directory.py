"""Create a run's directory, which no other run has, and describe the run in it."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bigmodel.config.seal import seal
from bigmodel.errors import StorageError
from bigmodel.safe_files import fsync_directory, write_json, write_text


def create_run_directory(output_dir: Path) -> Path:
    """Create `<date>/<time>-<suffix>`; two starts in the same second get two directories.

    Raises:
        StorageError: nothing can be written there.
    """
    while True:
        now = datetime.now()
        with contextlib.suppress(FileExistsError):
            return create_below(output_dir, f"{now:%Y-%m-%d}", f"{now:%H-%M-%S}-{secrets.token_hex(2)}")


def create_below(output_dir: Path, folder: str, name: str) -> Path:
    """Create `folder/name`, or `folder-USER/name` where the folder belongs to another user of `output_dir`.

    Raises:
        FileExistsError: the directory exists.
        StorageError: nothing can be written there.
    """
    try:
        return create_exclusive(output_dir / folder / name)
    except StorageError as error:
        is_denied = isinstance(error.__cause__, PermissionError) and not os.access(output_dir / folder, os.W_OK)
        if not is_denied or not os.access(output_dir, os.W_OK):
            raise
        return create_exclusive(output_dir / f"{folder}-{user_name()}" / name)


def user_name() -> str:
    """Return the user's name, made safe for a file name."""
    try:
        return re.sub(r"[^\w.-]", "_", pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:  # a user id without a name, as in a container
        return str(os.geteuid())


def create_exclusive(path: Path) -> Path:
    """Create this directory and its missing parents.

    Raises:
        FileExistsError: the directory exists.
        StorageError: nothing can be written there.
    """
    try:
        new = [path, *(parent for parent in path.parents if not parent.exists())]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
        for folder in new:  # else a power loss could drop the directory's name, and so all that is synced inside
            fsync_directory(folder.parent)
    except FileExistsError:
        if path.is_dir():
            raise
        raise StorageError(f"{path}: cannot be created: a part of it is a file") from None
    except (OSError, NotADirectoryError) as error:
        raise StorageError(
            f"{path}: cannot be created: {error.strerror}; set output_dir to a directory that you may write"
        ) from error
    return path


def write_description(directory: Path, config_yaml: str, environment: Mapping[str, Any] | None = None) -> None:
    """Write `config.yaml` and, for a new run, `environment.json`; each is replaced whole or not at all."""
    if environment is not None:
        write_json(directory / "environment.json", environment)
    write_text(directory / "config.yaml", seal(config_yaml))  # last: a run that has it can be resumed
