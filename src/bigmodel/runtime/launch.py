"""Start the ranks of a run on this machine and wait for them; or find out that somebody else has started them.

The ranks are forked from a process that has torch loaded and has computed nothing, so N of them start as fast as one.
It then forwards signals, ends the ranks that are left when one has failed, and knows their exit code. Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bigmodel.errors import ConfigError, DivergedError, Interrupted
from bigmodel.runtime.signals import STOP_SIGNALS, StopRequest, exit_with_parent
from bigmodel.runtime.watch import Silence, Watch

_LOOK_S = 0.02
_GRACE_S = 5.0  # from the first failure to the end of all ranks; one that is left waits for something that never comes
_AGREED = (0, Interrupted.exit_code, DivergedError.exit_code)  # ends that all ranks come to by themselves
PEER_LOST = 71  # exit code of a rank that another's end has ended; never that of a command
_FIRST_PORT, _PORTS = 20_000, 10_000  # where the ranks of a Slurm step meet


class Starter(Protocol):
    """Receiver of the ranks' reports in the process that started them; may hold the run's `lock` across restarts."""

    lock: int | None

    def sign(self, rank: int, waits: bool = False) -> None: ...

    def note_step(self, rank: int, step: int) -> None: ...

    def note_run(self, directory: Path, lock: int) -> None: ...


@dataclass(frozen=True)
class Place:
    """A process's place among the ranks.

    `meeting` is a file through which ranks of one machine find each other; None: MASTER_ADDR and MASTER_PORT. With
    `is_watched`, the process that started the ranks reports how they ended; `watch` receives the ranks' reports.
    `local_size` is the number of ranks on each machine, if the launcher states it.
    """

    rank: int
    size: int
    local_rank: int
    meeting: str | None = None
    is_watched: bool = False
    watch: Starter | None = None
    local_size: int | None = None

    def sign(self, waits: bool = False) -> None:
        """Let the process that started the ranks know that this one lives: computes, or `waits` for the others."""
        if self.watch is not None:
            self.watch.sign(self.rank, waits)

    def note_step(self, step: int) -> None:
        """Let it know which step has been taken."""
        if self.watch is not None:
            self.watch.note_step(self.rank, step)


def place_of_this_process(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place that torchrun, or srun with several tasks, has given to this process; None: it is alone.

    Raises:
        ConfigError: torchrun's variables contradict each other.
    """
    is_elastic = "TORCHELASTIC_RUN_ID" in environment  # whose single rank may have been, and become, several
    if "RANK" in environment and (is_elastic or int(environment.get("WORLD_SIZE", 1)) > 1):
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        if not {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys() or not 0 <= rank < size:
            raise ConfigError(
                f"RANK={rank} and WORLD_SIZE={size} are set, but not by torchrun, which sets MASTER_ADDR and "
                "MASTER_PORT too; use torchrun, or unset them"
            )
        here = int(environment.get("LOCAL_WORLD_SIZE", 0)) or None
        return Place(rank, size, int(environment.get("LOCAL_RANK", rank)), local_size=here)
    # not SLURM_NTASKS, which a batch script has too: it is one process
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        return Place(
            int(environment["SLURM_PROCID"]),
            int(environment["SLURM_STEP_NUM_TASKS"]),
            int(environment.get("SLURM_LOCALID", 0)),
            local_size=int(environment.get("SLURM_NTASKS_PER_NODE", 0)) or None,
        )
    return None


def meeting_point(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return MASTER_ADDR and MASTER_PORT: as set, or of a Slurm step: its first node, and a port of its number."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or "localhost"
    first = re.match(r"([^\[,]+)(?:\[([^\-,\]]+))?", nodes)  # gpu[03-07,12] begins with gpu03
    number = 100 * int(environment.get("SLURM_JOB_ID", 0)) + int(environment.get("SLURM_STEP_ID", 0))
    found = {
        "MASTER_ADDR": "".join(part or "" for part in first.groups()) if first else "localhost",
        "MASTER_PORT": str(_FIRST_PORT + number % _PORTS),
    }
    return {name: environment.get(name, value) for name, value in found.items()}


@dataclass
class Ends:
    """How the ranks of one start have ended, in the order of their ends, without those that had to be ended.

    `codes` by rank are negative for a signal; `untold` are the ranks that ended by no decision of their own, `silent`
    is the one that was waited for too long.
    """

    codes: dict[int, int] = field(default_factory=dict)
    untold: list[int] = field(default_factory=list)
    silent: Silence | None = None


def start_ranks(
    count: int, run: Callable[[Place, StopRequest], int], stop: StopRequest, watch: Watch, timeout_s: float | None
) -> Ends:
    """Fork `count` ranks, each of which ends with the exit code that `run` returns, and wait for all of them.

    A rank that has given no sign of life for `timeout_s` seconds ends them all; None: none is too long.
    """
    stop.defer()  # its handler only takes note; a second signal ends this process, and the kernel its ranks
    watch.begin()
    with tempfile.TemporaryDirectory(prefix="bigmodel-ranks-") as folder:
        places = [Place(rank, count, rank, str(Path(folder) / "store"), True, watch) for rank in range(count)]
        ranks = {fork_child(lambda place=place: _run_rank(place, run, watch)): place.rank for place in places}  # type: ignore[misc]
        ends = _wait(ranks, stop, watch, timeout_s)
    watch.receive()
    return ends


def fork_child(run: Callable[[], int], close: Iterable[int] = ()) -> int:
    """Fork a process that ends with the exit code of `run`, at the latest when this one ends; return its process id.

    It begins with stop signals blocked, until `run` has set its handlers, and without the descriptors `close`. Raises
    OSError where the system grants no more processes.
    """
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid == 0:
        code = 1
        try:
            exit_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in close:
                os.close(descriptor)
            code = run()
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


class RankStop(StopRequest):
    """A rank may get a signal twice, from outside and forwarded: only the first counts."""

    def handle(self, number: int, frame: object) -> None:
        """Take note of the first signal, as its handler."""
        if not self():
            super().handle(number, None)


def _run_rank(place: Place, run: Callable[[Place, StopRequest], int], watch: Watch) -> int:
    """Run a forked rank. Only rank 0 keeps standard output; no rank reads standard input."""
    os.setsid()  # a Ctrl-C reaches the process that started the ranks, which forwards it
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0,) if place.rank == 0 else (0, 1):
        os.dup2(nothing, stream)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the machine's name may have no address
    if (lock := watch.lock) is not None:
        os.register_at_fork(after_in_child=lambda: os.close(lock))  # a data worker may outlive the run
    code = run(place, RankStop().install())  # signals wait until the rank joins the others, and can say what it was
    watch.note_end(place.rank, code)
    return code


def _wait(ranks: Mapping[int, int], stop: StopRequest, watch: Watch, timeout_s: float | None) -> Ends:
    """Wait for the processes of `ranks`; see `start_ranks`."""
    left, ends = dict(ranks), Ends()
    deadline, is_forwarded = float("inf"), False
    while left:
        for pid in [*left]:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                rank = left.pop(pid)
                noted = watch.noted_end(rank)
                if noted is None:
                    ends.untold.append(rank)
                ends.codes[rank] = os.waitstatus_to_exitcode(status) if noted is None else noted
                was_early = ends.codes[rank] == Interrupted.exit_code and watch.step(rank) is None
                if was_early or ends.codes[rank] not in _AGREED:  # nothing to save yet, and no word to the others
                    deadline = min(deadline, time.monotonic() + _GRACE_S)
        watch.receive()
        if stop() and not is_forwarded:
            is_forwarded = True
            _signal(left, signal.Signals[stop.name])
        if timeout_s is not None and deadline == float("inf"):
            ends.silent = watch.silent({rank: pid for pid, rank in left.items()}, timeout_s)
        if ends.silent or time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)
            for pid in left:
                os.waitpid(pid, 0)
            return ends
        time.sleep(_LOOK_S)
    return ends


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
