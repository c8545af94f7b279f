"""A new sweep's directory: made beside its place and moved there once it is frozen. A kill before that leaves nothing
that looks like a sweep.
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

_STALE_S = 60.0  # after which a directory that is being frozen has surely been locked


def unused_path(output_dir: Path) -> Path:
    """A name for a new sweep, `sweeps/<date>_<time>-<suffix>`, at which nothing is yet; in `sweeps-USER` where the
    folder belongs to another user of `output_dir`.
    """
    folder = output_dir / "sweeps"
    if folder.exists() and not os.access(folder, os.W_OK) and os.access(output_dir, os.W_OK):
        folder = output_dir / f"sweeps-{user_name()}"
    while True:
        path = folder / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
        if not path.exists():
            return path


def staging_path(path: Path) -> Path:
    """Where the directory of a sweep lies until it is frozen."""
    return path.with_name(f"{TEMP_PREFIX}{path.name}")


def create_sweep_directory(path: Path, stage: bool) -> SweepDirectory:
    """A sweep to be frozen; with `stage` beside `path`, where it comes to lie then.

    Raises:
        ConfigError: there is one already.
        StorageError: nothing can be written there.
    """
    if is_sweep(path):
        again = resume_command(path, multirun=True)
        raise ConfigError(f"hydra.sweep.dir: a sweep is there already; to go on with it: {again}")
    if stage and not path.exists():
        for stale in path.parent.glob(f"{TEMP_PREFIX}*"):  # killed before it was frozen
            with contextlib.suppress(StorageError, OSError):
                if time() - stale.stat().st_mtime > _STALE_S:
                    RunLock(stale).release()
                    shutil.rmtree(stale)
        return SweepDirectory(create_exclusive(staging_path(path)), path)
    if not path.is_dir():
        create_exclusive(path)
    return SweepDirectory(path)
