"""Ranks that are killed or hang start again, from the last checkpoint, and the run ends as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bigmodel.commands.ranks import lock_run
from bigmodel.commands.restarts import _accident, run_with_restarts
from bigmodel.config.config import Config
from bigmodel.errors import AlreadyReported, BigmodelError, DataError, StorageError
from bigmodel.interfaces import Batch
from bigmodel.runs.lock import RunLock
from bigmodel.runtime.launch import Ends, Place
from bigmodel.runtime.signals import StopRequest
from bigmodel.runtime.watch import Silence, Watch
from bigmodel.training.state import TrainState
from conftest import contents, fingerprint, only_run, records
from forks import ForkServerProcess, finished, until
from several_ranks import LONG, SHORT, is_alive, output_of, rank_processes, running, start, trained

WORDS = (*SHORT, "limit_batches=6", "epochs=2", "save_every=3steps", "device.count=2", "model.dropout=0.1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("whole"), *WORDS)


def _once(then: Callable[[], object], rank: int, step: int) -> None:
    """Have one rank do something at the beginning of one step, the first time that it comes to it."""
    train_step, mark = TrainState.train_step, Path("came").absolute()

    def with_accident(self: TrainState, batch: Batch) -> None:
        if self.step == step and self.device.world.rank == rank and not mark.exists():
            mark.touch()
            then()
        train_step(self, batch)

    TrainState.train_step = with_accident  # type: ignore[method-assign]


def _kill_rank_1() -> None:
    _once(lambda: os.kill(os.getpid(), signal.SIGKILL), 1, 7)


def _kill_rank_0() -> None:
    _once(lambda: os.kill(os.getpid(), signal.SIGKILL), 0, 7)


def _crash_rank_1() -> None:
    _once(lambda: os.kill(os.getpid(), signal.SIGSEGV), 1, 7)


def _exit_rank_1() -> None:
    _once(lambda: os._exit(1), 1, 7)


def _stop_rank_1() -> None:
    _once(lambda: os.kill(os.getpid(), signal.SIGSTOP), 1, 7)


def _hang_rank_0() -> None:
    _once(lambda: time.sleep(1000), 0, 7)


def _kill_rank_1_before_a_save() -> None:
    _once(lambda: os.kill(os.getpid(), signal.SIGKILL), 1, 0)


def _as_unbroken(cwd: Path, whole: Path) -> list[str]:
    """Compare the run, and return what was said of its restarts, which terminal and log agree on."""
    run = only_run(cwd)
    assert fingerprint(run) == fingerprint(whole)
    assert contents(run) == contents(whole)
    words = output_of(cwd).splitlines()
    logged = (run / "train.log").read_text().splitlines()
    assert [line[20:] for line in logged if " warning: " in line] == words
    assert "Traceback" not in "".join(logged)
    return words


def test_a_killed_rank_starts_again(whole: Path, tmp_path: Path) -> None:
    assert finished(start(tmp_path, *WORDS, before=_kill_rank_1), LONG) == 0, output_of(tmp_path)
    (line,) = _as_unbroken(tmp_path, whole)
    assert re.fullmatch(  # a save is committed beside the steps that follow
        r"warning: rank 1 was killed by SIGKILL \(often: out of memory\); all ranks go on from step [36] "
        r"\(restart 1 of 3\)",
        line,
    )


def test_the_rank_that_others_wait_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("bigmodel.runtime.watch.monotonic", lambda: now)
    processes = {rank: os.getpid() for rank in range(3)}
    with contextlib.closing(Watch(3)) as watch:
        watch.begin()
        for rank in range(3):
            watch.note_step(rank, 4)
            watch.sign(rank, waits=rank != 1)
        now = 9.0
        assert watch.silent(processes, 10) is None
        watch.sign(1)
        now = 15.0
        assert watch.silent(processes, 10) is None  # the others wait for it, and it lives
        now = 20.0
        assert watch.silent(processes, 10) == Silence(1, 11.0, 4)
        watch.begin()
        now = 40.0
        assert watch.silent(processes, 10) is None  # before its first step a rank may compute for long
        sum(range(3_000_000))
        now = 60.0
        assert watch.silent(processes, 10) is None
        now = 80.0
        assert watch.silent({1: 1 << 30}, 10) is None
        now = 100.0
        assert watch.silent({1: 1 << 30}, 10) == Silence(1, 20.0, None)
        for rank in range(3):
            watch.note_step(rank, 4)
            watch.sign(rank, waits=True)
        now = 120.0
        watch.sign(2, waits=True)
        assert watch.silent(processes, 10) is None  # one has only begun to wait
        now = 140.0
        with _stopped() as stopped:
            assert watch.silent({**processes, 2: stopped}, 10) == Silence(2, 20.0, 4)  # others have waited for longer


@contextlib.contextmanager
def _stopped() -> Iterator[int]:
    """A process that a signal has stopped."""
    process = subprocess.Popen(["sleep", "1000"])
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("codes", "untold", "code"),
    [
        ({0: 75, 1: 71}, [], 75),  # stopped before the others had met it
        ({1: 71, 0: 75}, [], 75),
        ({0: 75, 1: 75}, [], 75),
        ({0: 3, 1: 71}, [], 3),
        ({0: 75, 1: 3}, [], 3),
    ],
)
def test_what_a_rank_has_said_ends_the_run(codes: dict[int, int], untold: list[int], code: int) -> None:
    with pytest.raises(AlreadyReported) as caught:
        _accident(Ends(codes, untold))
    assert caught.value.exit_code == code


@pytest.mark.parametrize(
    ("codes", "untold", "text"),
    [
        ({0: 71, 1: 71}, [], "the ranks have lost each other, and none says why"),
        ({0: -9, 1: 71}, [0], "rank 0 was killed by SIGKILL"),
        ({0: 75, 1: -11}, [1], "rank 1 was killed by SIGSEGV"),
        ({0: 1, 1: -11}, [1], "rank 1 was killed by SIGSEGV"),  # 1 may be what a library makes of a lost rank
    ],
)
def test_what_no_rank_has_said_is_an_accident(codes: dict[int, int], untold: list[int], text: str) -> None:
    failure = _accident(Ends(codes, untold))
    assert failure is not None
    assert failure.text.startswith(text)
    assert _accident(Ends({0: 0, 1: 0}, [])) is None


KILLED, CRASHED = (Ends({0: 71, 1: -code}, [1]) for code in (9, 11))
STOPPED = Ends({0: 75, 1: -9}, [1])
DONE = Ends({0: 0, 1: 0})


@pytest.mark.parametrize(
    ("ends", "steps", "restarts", "starts", "code"),
    [
        ([KILLED, DONE], [0, 0], 3, 2, None),
        ([KILLED, KILLED, DONE], [0, 0, 0], 3, 2, 6),
        ([KILLED, KILLED, DONE], [1, 2, 2], 3, 3, None),  # each of them after a new checkpoint
        ([KILLED], [1], 0, 1, 6),
        ([CRASHED] * 3 + [DONE], [1] * 4, 3, 4, None),
        ([CRASHED] * 4 + [DONE], [1] * 5, 3, 4, 1),
        ([CRASHED] * 4 + [DONE], [1, 2, 2, 2, 2], 3, 5, None),
        ([STOPPED, DONE], [1, 1], 3, 1, 6),
    ],
)
def test_how_often_ranks_start_again(
    ends: list[Ends], steps: list[int], restarts: int, starts: int, code: int | None, given: RunsOfRanks
) -> None:
    """`steps` are those of the newest checkpoints, 0 for none."""
    caught = given.run(ends, steps, restarts)
    assert len(given.begun) == starts
    assert caught == code
    assert given.begun[0] is None
    assert {*given.begun[1:]} <= {given.directory}


def test_a_directory_in_which_no_run_has_begun_is_removed(given: RunsOfRanks) -> None:
    (given.directory / "config.yaml").unlink()
    assert given.run([KILLED, DONE], [0, 0], 3) is None
    assert given.begun == [None, None]
    assert not given.directory.exists()


class RunsOfRanks:
    """Runs whose starts end as they are told to, in `directory`; `begun` is what each start was told to go on with."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory, self._patch = directory, patch
        self.begun: list[Path | None] = []
        directory.mkdir()
        (directory / "config.yaml").touch()

    def run(self, ends: list[Ends], steps: list[int], restarts: int) -> int | None:
        """Run, and return the exit code of what was raised."""

        def start(count: int, run: Any, stop: StopRequest, watch: Watch, timeout_s: float) -> Ends:
            run(Place(0, count, 0), stop)
            if watch.directory is None:
                watch.directory = self.directory
            if step := steps[len(self.begun) - 1]:
                (self.directory / "checkpoints" / f"step-{step:08d}").mkdir(parents=True, exist_ok=True)
            return ends[len(self.begun) - 1]

        def begin(place: Place, stop: StopRequest, begun: Path | None) -> int:
            self.begun.append(begun)
            return 0

        self._patch.setattr("bigmodel.commands.restarts.start_ranks", start)
        config = SimpleNamespace(values={"device": {"restarts": restarts}}, trust_for_resume=())
        try:
            run_with_restarts(cast(Config, config), 2, begin, StopRequest())
        except BigmodelError as error:
            return error.exit_code
        return None


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsOfRanks:
    return RunsOfRanks(tmp_path / "run", monkeypatch)


def test_the_lock_outlives_rank_0(tmp_path: Path) -> None:
    with contextlib.closing(Watch(1)) as watch:
        lock = lock_run(tmp_path, Place(0, 1, 0, watch=watch))
        watch.receive()
        assert watch.directory == tmp_path
        lock.release()
        with pytest.raises(StorageError, match=f"process {os.getpid()} is writing this run"):
            RunLock(tmp_path)
    RunLock(tmp_path).release()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "words", "begins"),
    [
        (_kill_rank_0, (), "rank 0 was killed by SIGKILL"),
        (_crash_rank_1, (), "rank 1 was killed by SIGSEGV; "),
        (_exit_rank_1, (), "rank 1 ended without a word (exit code 1); "),
        (_stop_rank_1, ("device.timeout=5",), "rank 1 gave no sign of life for "),
        (_hang_rank_0, ("device.timeout=5",), "rank 0 gave no sign of life for "),
        (_kill_rank_1_before_a_save, (), "rank 1 was killed by SIGKILL"),
    ],
)
def test_an_accident_does_not_end_the_run(
    before: Callable[[], None], words: tuple[str, ...], begins: str, whole: Path, tmp_path: Path
) -> None:
    assert finished(start(tmp_path, *WORDS, *words, before=before), LONG) == 0, output_of(tmp_path)
    run = only_run(tmp_path)
    if words:  # the config differs
        assert fingerprint(run) == fingerprint(whole)
        (line,) = output_of(tmp_path).splitlines()
        assert " s, after step 7; all ranks go on from step " in line
    else:
        (line,) = _as_unbroken(tmp_path, whole)
    assert line.startswith(f"warning: {begins}")
    known = ("from step 6", "from step 3")  # a save is committed beside the steps that follow
    assert any(one in line for one in (known if before is not _kill_rank_1_before_a_save else ("from the start",)))


def _kill_rank_1_always() -> None:
    train_step = TrainState.train_step

    def killed(self: TrainState, batch: Batch) -> None:
        if self.step == 7 and self.device.world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        train_step(self, batch)

    TrainState.train_step = killed  # type: ignore[method-assign]


def _crash_rank_1_always() -> None:
    train_step = TrainState.train_step

    def killed(self: TrainState, batch: Batch) -> None:
        if self.step == 7 and self.device.world.rank == 1:
            os.abort()
        train_step(self, batch)

    TrainState.train_step = killed  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "code", "restarts", "said"),
    [
        (_kill_rank_1_always, 6, 1, "rank 1 was killed by SIGKILL (often: out of memory), after 1 restart without"),
        (_crash_rank_1_always, 1, 3, "rank 1 was killed by SIGABRT, after 3 restarts without a new checkpoint, and"),
    ],
)
def test_what_repeats_is_given_up(
    before: Callable[[], None], code: int, restarts: int, said: str, tmp_path: Path
) -> None:
    assert finished(start(tmp_path, *WORDS, before=before), LONG) == code
    *warnings, last = output_of(tmp_path).splitlines()
    assert len(warnings) == restarts
    assert last.startswith(f"error: {said}")
    assert last.endswith(f"run: bigmodel-train resume={only_run(tmp_path).relative_to(tmp_path)}")


@pytest.mark.slow
def test_progress_gives_new_restarts(tmp_path: Path) -> None:
    process, ranks = running(tmp_path, "save_every=1steps")
    run = only_run(tmp_path)
    for _ in range(4):
        before = _newest(run)
        assert until(lambda before=before: _newest(run) > before + 2, process, LONG)
        ranks = rank_processes(process)
        os.kill(ranks[-1], signal.SIGKILL)
        assert until(lambda ranks=ranks: not any(map(is_alive, ranks)), process, LONG)
    assert until(lambda: len(rank_processes(process)) == 2, process, LONG)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    assert finished(process, LONG) == 75
    lines = output_of(tmp_path).splitlines()
    assert [line.endswith("(restart 1 of 3)") for line in lines] == [True] * 4 + [False]
    steps = [line["step"] for line in records(run)]
    assert steps == [*range(1, len(steps) + 1)]


def _newest(run: Path) -> int:
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


@pytest.mark.slow
def test_no_other_start_takes_the_run_between_restarts(tmp_path: Path) -> None:
    process, ranks = running(tmp_path, "save_every=1steps")
    run = only_run(tmp_path)
    assert until(lambda: _newest(run) > 1, process, LONG)
    assert (run / ".lock").read_text() == str(process.pid)
    rivals: list[ForkServerProcess] = []
    for _ in range(2):
        before = _newest(run)
        os.kill(rank_processes(process)[0], signal.SIGKILL)
        rivals += [start(tmp_path / f"rival-{len(rivals) + i}", f"resume={run}") for i in range(3)]
        assert until(lambda before=before: _newest(run) > before + 2, process, LONG)
    assert [finished(rival, LONG) for rival in rivals] == [5] * len(rivals)
    for number in range(len(rivals)):
        assert f"process {process.pid} is writing this run" in output_of(tmp_path / f"rival-{number}")
    process.kill()
    assert finished(process, LONG) == -signal.SIGKILL
    assert until(lambda: not any(map(is_alive, ranks)), process, LONG)
    resumed = start(tmp_path, f"resume={run}")  # nobody has the lock any more
    assert until(lambda: len(rank_processes(resumed)) == 2, resumed, LONG)
    before = _newest(run)
    assert until(lambda: _newest(run) > before, resumed, LONG)
    os.kill(resumed.pid, signal.SIGTERM)
    assert finished(resumed, LONG) == 75


def _bad_data_on_rank_1() -> None:
    def fail() -> None:
        raise DataError("bad sample")

    _once(fail, 1, 7)


@pytest.mark.slow
def test_what_a_rank_has_said_itself_is_not_tried_again(tmp_path: Path) -> None:
    assert finished(start(tmp_path, *WORDS, before=_bad_data_on_rank_1), LONG) == 3
    (line,) = output_of(tmp_path).splitlines()
    assert line.startswith("error: bad sample")
    assert json.loads((only_run(tmp_path) / "summary.json").read_text())["state"] == "failed"
