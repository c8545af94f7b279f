"""An exclusive lock on a run or sweep directory while it is written."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO, NoReturn

from bigmodel.errors import StorageError
from bigmodel.safe_files import (
    open_own,
    refuse_foreign_folder,
)

_PATIENCE = 50  # looks for the number of a lock's holder


class RunLock:
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
            # a look at whether it is held (`records.is_locked`) is over before the second try
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
