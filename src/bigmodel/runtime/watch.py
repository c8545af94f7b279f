"""Signs of life of forked ranks, the exit codes they reported, and the run's lock, for the process that forks them.

The signs lie in memory that forked ranks share with it, so a sign costs a microsecond and none is ever waited for. The
lock travels through a socket, so that no other start can take the run while a rank that held it is started again.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

_LONGEST_PATH = 1 << 16
_TIME, _STEP, _WAITS, _CODE, _FIELDS = range(5)  # of a rank, each a float64: one store writes it whole
_NOTHING = -1.0  # no step, no exit code
_STOPPED = ("T", "t")  # states of a process, by a signal or a debugger


@dataclass(frozen=True)
class Silence:
    """A rank that has given no sign of life for some seconds; `step` is the last one it took, None before the first."""

    rank: int
    seconds: float
    step: int | None


class Watch:
    """Shared record of `count` ranks: created before the fork, written by them, read by the process that forks them.

    `directory` is the run's, once rank 0 has made it; `lock` a descriptor that holds its lock.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._signs = memoryview(mmap.mmap(-1, 8 * _FIELDS * count)).cast("d")
        self._inner, self._outer = socket.socketpair()
        self.directory: Path | None = None
        self.lock: int | None = None
        self._cpu: dict[int, int] = {}

    def begin(self) -> None:
        """Forget the signs of an earlier start."""
        self._cpu.clear()
        for rank in range(self._count):
            self._signs[rank * _FIELDS : (rank + 1) * _FIELDS] = array.array("d", [monotonic(), _NOTHING, 0, _NOTHING])

    def sign(self, rank: int, waits: bool = False) -> None:
        """Note, as a rank, that it lives: computes, or `waits` for the others."""
        self._signs[rank * _FIELDS + _WAITS] = waits
        self._signs[rank * _FIELDS + _TIME] = monotonic()

    def note_step(self, rank: int, step: int) -> None:
        """Note, as a rank, which step it has taken."""
        self._signs[rank * _FIELDS + _STEP] = step

    def step(self, rank: int) -> int | None:
        """Return the step that a rank has taken last, None before the first."""
        step = self._signs[rank * _FIELDS + _STEP]
        return None if step == _NOTHING else int(step)

    def note_end(self, rank: int, code: int) -> None:
        """Note, as a rank, that it ends by itself with this exit code, and has said why."""
        self._signs[rank * _FIELDS + _CODE] = code

    def noted_end(self, rank: int) -> int | None:
        """Return the exit code that a rank has noted, whatever has ended it after that."""
        code = self._signs[rank * _FIELDS + _CODE]
        return None if code == _NOTHING else int(code)

    def note_run(self, directory: Path, lock: int) -> None:
        """Send, as rank 0, the run's directory and a descriptor of its lock; they arrive even if the rank dies."""
        socket.send_fds(self._inner, [os.fsencode(directory)], [lock])

    def receive(self) -> None:
        """Take what `note_run` has sent, if it has."""
        if not select.select([self._outer], [], [], 0)[0]:
            return
        name, locks, _, _ = socket.recv_fds(self._outer, _LONGEST_PATH, 1)
        self.directory = Path(os.fsdecode(name))
        self.lock = locks[0]
        os.ftruncate(self.lock, 0)
        os.write(self.lock, str(os.getpid()).encode())  # another start names this process as the one to wait for

    def silent(self, processes: Mapping[int, int], timeout_s: float) -> Silence | None:
        """Return the rank among those of `processes` (process id by rank) that all others wait for, if it is silent.

        Before its first step a rank reads data and compiles, which gives no signs: there, computing is one.
        """
        now = monotonic()
        ages = {rank: now - self._signs[rank * _FIELDS + _TIME] for rank in processes}
        busy = [rank for rank in processes if not self._signs[rank * _FIELDS + _WAITS]]
        late = [rank for rank in busy or processes if ages[rank] > timeout_s]
        if not late or (not busy and len(late) < len(ages)):
            return None
        # of ranks that all wait, the one that was stopped while it did
        rank = max(late, key=lambda rank: (_state(processes[rank]) in _STOPPED, ages[rank]))
        step = self.step(rank)
        if step is None and self._has_computed(rank, processes[rank]):
            self._signs[rank * _FIELDS + _TIME] = now
            return None
        return Silence(rank, ages[rank], step)

    def _has_computed(self, rank: int, process: int) -> bool:
        """Whether the rank, or a process that it has waited for, has used the CPU since the last call."""
        before, used = self._cpu.get(rank), _cpu_ticks(process)
        self._cpu[rank] = used
        return used != before

    def release(self) -> None:
        """Let go of the run's lock and directory."""
        if self.lock is not None:
            os.close(self.lock)
        self.directory = self.lock = None

    def close(self) -> None:
        self.release()
        self._inner.close()
        self._outer.close()


def _state(process: int) -> str:
    return next(iter(_stat(process)), "")


def _cpu_ticks(process: int) -> int:
    return sum(map(int, _stat(process)[11:15]))  # user and system time, of the process and of its ended children


def _stat(process: int) -> list[str]:
    """Return what Linux says of a process, from its state on; empty where nobody does."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return []
