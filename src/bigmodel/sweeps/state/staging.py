"""Create a sweep's directory under a temporary name; its first manifest moves it into place.

A kill before that leaves nothing that looks like a sweep.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from datetime import datetime
from pathlib import Path
from time import time

from bigmodel.errors import ConfigError, StorageError
from bigmodel.quoting import resume_command
from bigmodel.runs.directory import create_exclusive, user_name
from bigmodel.runs.lock import RunLock
from bigmodel.runs.records import is_sweep
from bigmodel.safe_files import TEMP_PREFIX
from bigmodel.sweeps.state.directory import SweepDirectory

_STALE_S = 60.0  # a staged directory of a living sweep is locked sooner than this


def unused_path(output_dir: Path) -> Path:
    """Return an unused path for a new sweep, `sweeps/<date>_<time>-<suffix>`.

    It lies in `sweeps-USER` where the folder `sweeps` belongs to another user of `output_dir`.
    """
    folder = output_dir / "sweeps"
    if folder.exists() and not os.access(folder, os.W_OK) and os.access(output_dir, os.W_OK):
        folder = output_dir / f"sweeps-{user_name()}"
    while True:
        path = folder / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
        if not path.exists():
            return path


def staging_path(path: Path) -> Path:
    """Return where a sweep's directory lies until its manifest is written."""
    return path.with_name(f"{TEMP_PREFIX}{path.name}")


def create_sweep_directory(path: Path, stage: bool) -> SweepDirectory:
    """Create the directory of a new sweep; with `stage` next to `path`, to be moved there with its manifest.

    Raises:
        ConfigError: there is a sweep at `path` already.
        StorageError: nothing can be written there.
    """
    if is_sweep(path):
        again = resume_command(path, multirun=True)
        raise ConfigError(f"hydra.sweep.dir: a sweep is there already; to resume it: {again}")
    if stage and not path.exists():
        for stale in path.parent.glob(f"{TEMP_PREFIX}*"):  # its sweep was killed before the manifest was written
            with contextlib.suppress(StorageError, OSError):
                if time() - stale.stat().st_mtime > _STALE_S:
                    RunLock(stale).release()
                    shutil.rmtree(stale)
        return SweepDirectory(create_exclusive(staging_path(path)), path)
    if not path.is_dir():
        create_exclusive(path)
    return SweepDirectory(path)
