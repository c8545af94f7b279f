"""Start the ranks of a run again, from its last checkpoint, after an end that need not repeat: one was killed, or hung.

A failure that a rank reports itself (config, data, divergence, memory, disk) would repeat, and ends the run.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bigmodel.config.config import Config
from bigmodel.errors import AlreadyReported, BigmodelError, Interrupted, OutOfMemoryError
from bigmodel.listeners.log_file import LogFile
from bigmodel.quoting import resume_command
from bigmodel.runs.checkpoint import list_checkpoints
from bigmodel.runs.checkpoint_path import step_of
from bigmodel.runtime.launch import PEER_LOST, Ends, Place, start_ranks
from bigmodel.runtime.signals import StopRequest, describe_exit_code
from bigmodel.runtime.terminal import draws_in_place
from bigmodel.runtime.watch import Watch

RESTARTS, TIMEOUT_S = 3, 600.0  # of a config that has no word on them
_KILLS = 1  # restarts after SIGKILL: a system that is out of memory would kill for ever
_NOT_ITS_OWN = (0, PEER_LOST, Interrupted.exit_code)  # exit codes of a rank that has not failed itself
_CLEAR = "\r\x1b[J"  # what a rank that was killed has drawn

RunRank = Callable[[Place, StopRequest, Path | None], int]


@dataclass
class _Failure:
    """An end that may be an accident, as text; with `is_kill` the system may have caused it by lack of memory."""

    text: str
    is_kill: bool = False


def run_with_restarts(config: Config, count: int, run: RunRank, stop: StopRequest) -> None:
    """Run `count` ranks until they are done; `run` gets the directory of the run to resume, or None.

    Raises:
        AlreadyReported: a rank has failed, or was stopped, and has said so.
        BigmodelError: ranks were killed, hung or lost each other, too often without a new checkpoint in between.
    """
    device = config.values["device"]
    allowed, timeout_s = device.get("restarts", RESTARTS), device.get("timeout", TIMEOUT_S)
    failures: list[_Failure] = []  # since the last checkpoint that is new
    saved = -1
    with contextlib.closing(Watch(count)) as watch:
        while True:
            begun = _directory_to_resume(watch)
            ends = start_ranks(count, lambda place, stop, begun=begun: run(place, stop, begun), stop, watch, timeout_s)  # type: ignore[misc]
            failure = _accident(ends)
            if failure is None:
                return
            newest = _newest_step(watch.directory)
            if newest > saved:
                saved = newest
                failures.clear()
            failures.append(failure)
            is_stopped = stop() or Interrupted.exit_code in ends.codes.values()
            kills = sum(past.is_kill for past in failures)
            if is_stopped or len(failures) > allowed or kills > min(allowed, _KILLS):
                raise _last(failures, watch.directory, config)
            where = f"step {newest}" if newest > 0 else "the start"
            _tell(f"{failure.text}; all ranks go on from {where} (restart {len(failures)} of {allowed})", watch)


def _accident(ends: Ends) -> _Failure | None:
    """Return what need not repeat; None if all is done. Raises AlreadyReported for what a rank has said."""
    if ends.silent is not None:
        since = "before its first step" if ends.silent.step is None else f"after step {ends.silent.step}"
        return _Failure(f"rank {ends.silent.rank} gave no sign of life for {ends.silent.seconds:.0f} s, {since}")
    told = [code for rank, code in ends.codes.items() if rank not in ends.untold and code not in _NOT_ITS_OWN]
    known = [code for code in told if code != 1]  # 1, an unknown error, may be what a library makes of a lost rank
    if known or (told and not ends.untold):
        raise AlreadyReported((known or told)[0])
    for rank in ends.untold:
        code = ends.codes[rank]
        how = describe_exit_code(code)
        text = f"rank {rank} was {how}" if code < 0 else f"rank {rank} ended without a word ({how})"
        return _Failure(text, is_kill=code == -signal.SIGKILL)
    if Interrupted.exit_code in ends.codes.values():  # the others may have lost it before they heard of the signal
        raise AlreadyReported(Interrupted.exit_code)
    if PEER_LOST in ends.codes.values():
        return _Failure("the ranks have lost each other, and none says why")
    return None


def _last(failures: list[_Failure], directory: Path | None, config: Config) -> BigmodelError:
    """Return the failure that is not followed by a restart."""
    again = resume_command(directory, config.trust_for_resume) if directory else "the same command"
    restarts = len(failures) - 1
    times = f", after {restarts} restart{'s' * (restarts > 1)} without a new checkpoint" if restarts else ""
    kind = OutOfMemoryError if failures[-1].is_kill else BigmodelError
    return kind(f"{failures[-1].text}{times}, and the others have stopped; run: {again}")


def _directory_to_resume(watch: Watch) -> Path | None:
    """Return the directory of a run that has begun. One that has not is removed: nothing can be resumed from it."""
    if watch.directory is None or (watch.directory / "config.yaml").is_file():
        return watch.directory
    shutil.rmtree(watch.directory, ignore_errors=True)
    watch.release()
    return None


def _newest_step(directory: Path | None) -> int:
    found = list_checkpoints(directory / "checkpoints") if directory is not None else []
    return max((step for path in found if (step := step_of(path)) is not None), default=-1)


def _tell(text: str, watch: Watch) -> None:
    """Warn on the terminal and in the run's log, where no rank writes now."""
    with contextlib.suppress(OSError):
        print(f"{_CLEAR if draws_in_place() else ''}warning: {text}", file=sys.stderr, flush=True)
    if watch.directory is not None and (watch.directory / "config.yaml").is_file():
        with contextlib.suppress(OSError):
            log = LogFile(watch.directory)
            log.write(f"warning: {text}")
            log.close()
