"""An exclusive lock on a run or sweep directory while it is written."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO, NoReturn

from bigmodel.errors import StorageError
from bigmodel.safe_files import open_own, refuse_foreign_folder

_TIMEOUT_S = 0.5
_RETRY_S = 0.01


class RunLock:
    """Lock that a process holds while it writes a run; the kernel releases it when the process dies.

    A holder that has ended is waited for, up to `timeout_s`: its child processes may hold the lock until they end, too.
    `inherited` is the descriptor of a lock that a parent holds, and goes on to hold.

    Raises:
        StorageError: another process holds the lock, or the file system has no locks.
    """

    def __init__(self, directory: Path, timeout_s: float = _TIMEOUT_S, inherited: int | None = None) -> None:
        refuse_foreign_folder(directory / "checkpoints")
        if inherited is not None:
            self._file: IO[str] = os.fdopen(os.dup(inherited), "a+", encoding="utf-8")
            os.register_at_fork(after_in_child=self._file.close)
            return
        self._file = open(  # noqa: SIM115 - open as long as the lock is held
            open_own(directory / ".lock", os.O_RDWR | os.O_APPEND), "a+", encoding="utf-8"
        )
        os.register_at_fork(after_in_child=self._file.close)  # a data worker may outlive the run
        for attempt in range(round(timeout_s / _RETRY_S)):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    self._file.close()
                    raise StorageError(
                        f"{directory}: its file system has no locks ({error.strerror}), so two processes could write "
                        "one run; set output_dir to a disk that has locks"
                    ) from error
                self._file.seek(0)
                holder = self._file.read().strip()
            # at the first attempt the holder may be `records.is_locked`, which releases the lock at once
            if attempt and holder.isdigit() and Path(f"/proc/{holder}").exists():
                self._raise_locked(directory, holder)
            time.sleep(_RETRY_S)  # the holder may not have written its process id yet
        else:
            self._raise_locked(directory, holder or "unknown")
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def fileno(self) -> int:
        """Return the descriptor that holds the lock; a process that inherits it holds the lock too."""
        return self._file.fileno()

    def release(self) -> None:
        """Let another process write the run."""
        self._file.close()

    def _raise_locked(self, directory: Path, holder: str) -> NoReturn:
        self._file.close()
        where = "" if Path(f"/proc/{holder}").exists() else ", on another machine or just ended"
        raise StorageError(f"{directory}: process {holder} is writing this run{where}; wait for it or stop it")
