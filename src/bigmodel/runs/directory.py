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

from bigmodel.errors import StorageError
from bigmodel.formatting import clip
from bigmodel.safe_files import (
    LARGEST_LINES,
    open_own,
    read_bytes,
    read_text,
    refuse_foreign_folder,
    sync_directory,
    write_json,
    write_text,
)

_PATIENCE = 50  # looks for the number of a lock's holder
_SEAL = "# SHA-256 of the lines above: "
_DEVICE_NUMBER = re.compile(r"(?<=^cuda):\d+")
_OTHER_BITS = "what follows may have other bits than an unbroken run"
_MEANS = {"dataset": "what follows is trained on other data"}
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
        return make_exactly(output_dir / f"{folder}-{user_name()}" / name)


def user_name() -> str:
    """The name of who runs this, fit for a file name."""
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
    write_text(directory / "config.yaml", sealed(config_yaml))  # last: what has it can be resumed


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


def cut_after(metrics: Path, step: int) -> tuple[list[dict[str, Any]], list[int]]:
    """Rewrite a metrics file without what a run that is resumed at `step` will write again.

    Returns the records that stay, and the numbers of the lines, from 1, that are damaged and are left out. A last line
    without its end is what a kill leaves, and is no damage.
    """
    if not metrics.exists():
        return [], []
    lines = read_bytes(metrics, LARGEST_LINES).splitlines(keepends=True)
    kept: list[bytes] = []
    records: list[dict[str, Any]] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        record = _record(line)
        if record is None:
            damaged.append(number)
        elif record["step"] <= step and record["split"] != "test":
            kept.append(line)
            records.append(record)
    write_text(metrics, b"".join(kept).decode("utf-8"))
    return records, damaged


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of metrics as a record with a step and a split, or None for anything else."""
    try:
        record = json.loads(line.decode("utf-8"))
        sound = isinstance(record["step"], int) and isinstance(record["split"], str)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return record if sound else None


def worked(directory: Path) -> float:
    """Seconds that a run has been worked on before, by its summary; 0 where that has none.

    Raises:
        ValueError: the summary is damaged.
    """
    try:
        seconds = json.loads(read_text(directory / "summary.json"))["seconds"]
        return float(seconds)
    except OSError:
        return 0.0
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{directory / 'summary.json'}: damaged; its seconds are lost, all else is made anew"
        ) from error


def moved(directory: Path, now: Mapping[str, Any]) -> list[str]:
    """How the surroundings of a run that is resumed differ from those it began in, a line each.

    A damaged `environment.json` is written anew, with those of `now`.
    """
    file = directory / "environment.json"
    try:
        began = json.loads(read_text(file))
        pairs = [(name, str(began[name]), str(now[name])) for name in ("dataset", "device")]
        pairs += [
            (f"version of {name}", str(began["versions"].get(name)), text) for name, text in now["versions"].items()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        write_json(file, now)
        state = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        return [f"{file}: {state}; written anew, with the surroundings of this start instead of the first"]
    return [
        f"the {name} was {clip(old)}, is now {clip(new)}: {_MEANS.get(name, _OTHER_BITS)}"
        for name, old, new in pairs
        if _DEVICE_NUMBER.sub("", old) != _DEVICE_NUMBER.sub("", new)
    ]


def sealed(text: str) -> str:
    """A config as YAML with a last line that vouches for the lines above."""
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(_SEAL))
    return f"{body}{_SEAL}{hashlib.sha256(body.encode()).hexdigest()}\n"


def intact(text: str) -> bool | None:
    """Whether a config is as `sealed` wrote it; None where it has no such line, as those of older versions."""
    seals = [line for line in text.splitlines() if line.startswith(_SEAL)]
    return sealed(text) == text if seals else None
