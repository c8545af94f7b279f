"""Ranks that are forked: whom their starter waits for, and signals that come before they have met."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.commands.exit_codes import exit_code_of
from bigmodel.errors import BigmodelError, DataError, Interrupted
from bigmodel.runtime.distributed import join_ranks
from bigmodel.runtime.launch import PEER_LOST, Place, fork_child, start_ranks
from bigmodel.runtime.signals import STOP_SIGNALS, StopRequest
from bigmodel.runtime.watch import Watch
from forks import _server, finished

RunRank = Callable[[Place, StopRequest], int]
SECONDS = 60  # beside others


def _as_command(place: Place, stop: StopRequest, then: Callable[[], object]) -> int:
    """Join the other ranks and do something, as a rank of a command."""

    def run() -> int:
        with join_ranks(place, use_gpus=False):
            then()
        return 0

    return exit_code_of(run, False, stop)


def _join(place: Place, stop: StopRequest) -> int:
    return _as_command(place, stop, lambda: None)


def _rank_1_is_stopped_alone(place: Place, stop: StopRequest) -> int:
    if place.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)  # handled when it joins
    return _join(place, stop)


def _both_are_stopped_in_foreign_code(place: Place, stop: StopRequest) -> int:
    def fail() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted:
            raise RuntimeError("what foreign code makes of it") from None

    return _as_command(place, stop, fail)


def _rank_1_fails_alone(place: Place, stop: StopRequest) -> int:
    def fail() -> None:
        if place.rank == 1:
            raise DataError("a bad file")
        time.sleep(1000)

    return _as_command(place, stop, fail)


def _both_fail(place: Place, stop: StopRequest) -> int:
    def fail() -> None:
        raise BigmodelError("a common failure")

    return _as_command(place, stop, fail)


def _hear_a_signal(place: Place, stop: StopRequest) -> int:
    """End as the signals tell that the process which started the ranks has got one."""

    def wait() -> None:
        if place.rank == 0:
            os.kill(os.getppid(), signal.SIGUSR1)
        time.sleep(1000)

    return _as_command(place, stop, wait)


def _hear_it_twice(place: Place, stop: StopRequest) -> int:
    def wait() -> None:
        stop.defer()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    return _as_command(place, stop, wait)


def _start(run: RunRank, is_stopped: bool, output: Path) -> None:
    """Start two ranks and write down how they have ended."""
    os.dup2(os.open(output / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    stop = StopRequest().install()
    if is_stopped:
        with contextlib.suppress(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
    with contextlib.closing(Watch(2)) as watch:
        ends = start_ranks(2, run, stop, watch, 600)
    (output / "ends").write_text(repr(({*ends.codes.values()}, ends.untold)))
    os._exit(0)


@pytest.mark.parametrize(
    ("run", "is_stopped", "code", "said"),
    [
        (_join, False, 0, ""),
        (_join, True, 75, "stopped by SIGTERM; nothing was written\n"),
        (_rank_1_is_stopped_alone, False, 75, "stopped by SIGTERM; nothing was written\n"),
        (_both_are_stopped_in_foreign_code, False, 75, "stopped by SIGTERM; nothing was written\n"),
        (_rank_1_fails_alone, False, 3, "error: a bad file\n"),
        (_both_fail, False, 1, "error: a common failure\n"),
        (_hear_a_signal, False, 75, "stopped by SIGUSR1; nothing was written\n"),
        (_hear_it_twice, False, 0, ""),
    ],
)
def test_ranks_end_together_and_one_says_why(
    run: RunRank, is_stopped: bool, code: int, said: str, tmp_path: Path
) -> None:
    process = _server.Process(target=_start, args=(run, is_stopped, tmp_path), daemon=False)
    process.start()
    assert finished(process, SECONDS) == 0
    # a rank that still waits for the others has been ended, or has lost them before they met
    codes, untold = ast.literal_eval((tmp_path / "ends").read_text())
    assert (codes - {PEER_LOST}, untold) == ({code}, [])
    assert (tmp_path / "said").read_text() == said


def test_a_forked_process_gets_no_signal_before_its_handlers() -> None:
    def blocked() -> int:
        return len({*STOP_SIGNALS} & signal.pthread_sigmask(signal.SIG_BLOCK, []))

    _, status = os.waitpid(fork_child(blocked), 0)
    assert os.waitstatus_to_exitcode(status) == len(STOP_SIGNALS)
    assert not {*STOP_SIGNALS} & signal.pthread_sigmask(signal.SIG_BLOCK, [])
