"""One run's directory: made exclusively, locked while written, described so that it can be redone."""

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
from bigmodel.safe_files import (
    fsync_directory,
    write_json,
    write_text,
)


def create_run_directory(output_dir: Path) -> Path:
    """A new directory `<date>/<time>-<suffix>`; two starts in the same second get two directories.

    Raises:
        StorageError: nothing can be written there.
    """
    while True:
        now = datetime.now()
        with contextlib.suppress(FileExistsError):
            return create_below(output_dir, f"{now:%Y-%m-%d}", f"{now:%H-%M-%S}-{secrets.token_hex(2)}")


def create_below(output_dir: Path, folder: str, name: str) -> Path:
    """Make `folder/name`, or `folder-USER/name` where the folder belongs to another user of `output_dir`.

    Raises:
        FileExistsError: it is there already.
        StorageError: nothing can be written there.
    """
    try:
        return create_exclusive(output_dir / folder / name)
    except StorageError as error:
        another = isinstance(error.__cause__, PermissionError) and not os.access(output_dir / folder, os.W_OK)
        if not another or not os.access(output_dir, os.W_OK):
            raise
        return create_exclusive(output_dir / f"{folder}-{user_name()}" / name)


def user_name() -> str:
    """The name of who runs this, fit for a file name."""
    try:
        return re.sub(r"[^\w.-]", "_", pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:  # as in a container
        return str(os.geteuid())


def create_exclusive(path: Path) -> Path:
    """Make this directory, which must be new.

    Raises:
        FileExistsError: it is there already.
        StorageError: nothing can be written there.
    """
    try:
        new = [path, *(parent for parent in path.parents if not parent.exists())]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
        for made in new:  # or what is synced inside could be lost with its name
            fsync_directory(made.parent)
    except FileExistsError:
        if path.is_dir():
            raise
        raise StorageError(f"{path}: cannot be made: a part of it is a file") from None
    except (OSError, NotADirectoryError) as error:
        raise StorageError(
            f"{path}: cannot be made: {error.strerror}; set output_dir to a place you may write"
        ) from error
    return path


def write_description(directory: Path, config_yaml: str, environment: Mapping[str, Any] | None = None) -> None:
    """Write `config.yaml` and, for a new run, `environment.json`; each is whole or as it was."""
    if environment is not None:
        write_json(directory / "environment.json", environment)
    write_text(directory / "config.yaml", seal(config_yaml))  # last: what has it can be resumed
