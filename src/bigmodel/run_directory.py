"""One run's directory: made exclusively, locked while written, described so that it can be redone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import pwd
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NoReturn

from bigmodel.durable import (
    LARGEST_LINES,
    open_own,
    read_bytes,
    read_text,
    refuse_foreign_folder,
    sync_directory,
    write_json,
    write_text,
)
from bigmodel.errors import StorageError

_PATIENCE = 50  # looks for the number of a lock's holder
_SECRET = re.compile(r"(token|secret|password|passwd|api_?key|credential)", re.IGNORECASE)


def make(output_dir: Path) -> Path:
    """A new directory `<date>/<time>-<suffix>`; two starts in the same second get two directories.

    Raises:
        StorageError: nothing can be written there.
    """
    while True:
        now = datetime.now()
        with contextlib.suppress(FileExistsError):
            return make_below(output_dir, f"{now:%Y-%m-%d}", f"{now:%H-%M-%S}-{secrets.token_hex(2)}")


def make_below(output_dir: Path, folder: str, name: str) -> Path:
    """Make `folder/name`, or `folder-USER/name` where the folder belongs to another user of `output_dir`.

    Raises:
        FileExistsError: it is there already.
        StorageError: nothing can be written there.
    """
    try:
        return make_exactly(output_dir / folder / name)
    except StorageError as error:
        another = isinstance(error.__cause__, PermissionError) and not os.access(output_dir / folder, os.W_OK)
        if not another or not os.access(output_dir, os.W_OK):
            raise
        return make_exactly(output_dir / f"{folder}-{_user()}" / name)


def _user() -> str:
    try:
        return re.sub(r"[^\w.-]", "_", pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:  # as in a container
        return str(os.geteuid())


def make_exactly(path: Path) -> Path:
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
            sync_directory(made.parent)
    except FileExistsError:
        if path.is_dir():
            raise
        raise StorageError(f"{path}: cannot be made: a part of it is a file") from None
    except (OSError, NotADirectoryError) as error:
        raise StorageError(
            f"{path}: cannot be made: {error.strerror}; set output_dir to a place you may write"
        ) from error
    return path


class Lock:
    """Held while a process writes a run; the kernel lets go of it when the holder dies, however it dies."""

    def __init__(self, directory: Path) -> None:
        refuse_foreign_folder(directory / "checkpoints")
        self._file: IO[str] = open(  # noqa: SIM115 - it is held
            open_own(directory / ".lock", os.O_RDWR | os.O_APPEND), "a+", encoding="utf-8"
        )
        os.register_at_fork(after_in_child=self._file.close)  # a data worker that outlives its parent holds nothing
        for look in range(_PATIENCE):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    self._file.close()
                    raise StorageError(
                        f"{directory}: its file system refuses locks ({error.strerror}), and without one two processes "
                        "could write one run; set output_dir to a disk that has locks"
                    ) from error
                self._file.seek(0)
                holder = self._file.read().strip()
            # a look at whether it is held (`results.reading.held`) is over before the second try
            if look and holder.isdigit() and Path(f"/proc/{holder}").exists():
                self._refuse(directory, holder)
            time.sleep(0.01)  # it has the lock, and is about to write its number over that of a dead one
        else:
            self._refuse(directory, holder or "unknown")
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def fileno(self) -> int:
        """The descriptor that holds the lock: a process that inherits it holds the lock too."""
        return self._file.fileno()

    def release(self) -> None:
        """Let another process write."""
        self._file.close()

    def _refuse(self, directory: Path, holder: str) -> NoReturn:
        self._file.close()
        where = "" if Path(f"/proc/{holder}").exists() else ", on another machine or just ended"
        raise StorageError(f"{directory}: process {holder} is writing this run{where}; wait for it or stop it")


def describe(directory: Path, config_yaml: str, environment: Mapping[str, Any] | None = None) -> None:
    """Write `config.yaml` and, for a new run, `environment.json`; each is whole or as it was."""
    if environment is not None:
        write_json(directory / "environment.json", environment)
    write_text(directory / "config.yaml", config_yaml)  # last: what has it can be resumed


def environment(versions: Mapping[str, str], device: str, fingerprint: str) -> dict[str, Any]:
    """Where a run took place: code, versions, hardware, data and command line, without secrets."""
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": redacted(sys.argv),
        "directory": os.getcwd(),
        "git": _git(),
        "python": platform.python_version(),
        "versions": dict(versions),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": device,
        "dataset": fingerprint,
    }


def redacted(arguments: Sequence[str]) -> list[str]:
    """The command line with the values of secret-looking keys starred out."""
    shown = []
    for argument in arguments:
        key, sign, _ = argument.partition("=")
        shown.append(f"{key}=***" if sign and _SECRET.search(key) else argument)
    return shown


def _git() -> dict[str, str] | None:
    """Commit, and a hash of the uncommitted changes, of the checkout in the current directory."""

    def ask(*words: str) -> bytes:
        return subprocess.run(["git", *words], capture_output=True, check=True, timeout=10).stdout

    try:
        commit, diff = ask("rev-parse", "HEAD").decode().strip(), ask("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else ""}


def cut_after(metrics: Path, step: int) -> None:
    """Drop a torn last line and all after `step` from a metrics file: a resumed run adds each step once."""
    if not metrics.exists():
        return
    kept = []
    for line in read_bytes(metrics, LARGEST_LINES).splitlines(keepends=True):
        try:
            event = json.loads(line)
            whole = line.endswith(b"\n") and event["step"] <= step and event["split"] != "test"
        except (ValueError, TypeError, LookupError, RecursionError):
            break
        if not whole:
            break
        kept.append(line)
    write_text(metrics, b"".join(kept).decode("utf-8"))


def started(directory: Path) -> float:
    """Seconds that a run has been worked on before, from its summary; 0 for a new one."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        return float(json.loads(read_text(directory / "summary.json"))["seconds"])
    return 0.0
