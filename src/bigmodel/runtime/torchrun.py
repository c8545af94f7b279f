"""The run that a torchrun has begun: its ranks find it when they are started again, also with more or fewer machines.

It is noted in a file below `output_dir`, which all machines see: torchrun's own store ends with its machine.
Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from bigmodel.safe_files import own_folder, read_text, remove, write_text

_NO_ID = "none"  # what torchrun calls a rendezvous without --rdzv-id
_LONGEST = 1 << 16


class TorchrunNote:
    """Where the run lies that this torchrun, known by its --rdzv-id, has begun with one config; its ranks' `watch`."""

    lock: int | None = None

    def __init__(self, output_dir: Path, config: str, environment: Mapping[str, str] = os.environ) -> None:
        run_id, starts = environment["TORCHELASTIC_RUN_ID"], environment.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._is_new = run_id == _NO_ID and starts == "0"  # any torchrun may have had this id
        name = hashlib.sha256(f"{run_id}\n{config}".encode()).hexdigest()[:16]
        self._output_dir = output_dir
        self._file = output_dir / f".torchrun-{os.geteuid()}" / name

    @classmethod
    def of_this_process(cls, output_dir: Path, config: str) -> TorchrunNote | None:
        """Return the note of the torchrun that started this process; None without torchrun."""
        return cls(output_dir, config) if "TORCHELASTIC_RUN_ID" in os.environ else None

    def find(self) -> Path | None:
        """Return the directory of the run to resume; None if no run has begun."""
        with contextlib.suppress(OSError, ValueError):
            if not self._is_new and self._file.parent.lstat().st_uid == os.geteuid():
                directory = Path(read_text(self._file, _LONGEST))
                return directory if (directory / "config.yaml").is_file() else None
        return None

    def note_run(self, directory: Path, lock: int) -> None:
        """Record, as rank 0, the run's directory."""
        self._output_dir.mkdir(parents=True, exist_ok=True)  # of a run that lies elsewhere
        own_folder(self._file.parent)
        write_text(self._file, str(directory.absolute()))

    def forget(self) -> None:
        """Have the next start with this id begin a new run."""
        with contextlib.suppress(OSError):
            remove(self._file)
            self._file.parent.rmdir()  # unless it has other notes

    def sign(self, rank: int, waits: bool = False) -> None:
        """Nobody looks: a collective that takes too long ends its ranks."""

    def note_step(self, rank: int, step: int) -> None:
        """Nobody looks."""
