"""Run a sweep to its end: which job starts when, and what follows when one ends."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from bigmodel.runtime.gpus import visible_gpus
from bigmodel.runtime.signals import StopRequest
from bigmodel.safe_files import read_text
from bigmodel.sweeps.engines.base import Engine
from bigmodel.sweeps.engines.job_context import JobContext
from bigmodel.sweeps.state.directory import SweepDirectory
from bigmodel.sweeps.state.jobs import PERMANENT_FAILURES, JobProgress
from bigmodel.sweeps.table import SweepDisplay

if TYPE_CHECKING:
    from bigmodel.sweeps.search.study import OptunaSearch

POLL_S = 0.25  # between two looks at signals and at the jobs' progress
_SLOW_LIBRARIES = {"torchvision_model": "torchvision", "timm_model": "timm"}  # safe to import before a fork


def run_sweep(
    sweep: SweepDirectory,
    engine: Engine,
    numbers: Collection[int],
    stop: StopRequest,
    search: OptunaSearch | None = None,
) -> None:
    """Run those of `numbers` that are not final, then the trials that a search asks for.

    Returns when all jobs have ended; after a stop request, or a failure with `on_failure=stop`, the running ones have
    saved first.
    """
    stop.defer()
    jobs = sweep.read_progress(numbers)
    to_run = [number for number, job in jobs.items() if not sweep.is_final(job)]
    engine.configure(_job_context(sweep, to_run))
    closing = contextlib.closing(search) if search else contextlib.nullcontext()
    with SweepDisplay(sweep, jobs, len(to_run)) as display, closing:
        _SweepRun(sweep, engine, stop, search, display, jobs, to_run).run()


class _SweepRun:
    """The jobs of one `run_sweep` call: queued, running, and how often each was tried."""

    def __init__(
        self,
        sweep: SweepDirectory,
        engine: Engine,
        stop: StopRequest,
        search: OptunaSearch | None,
        display: SweepDisplay,
        jobs: dict[int, JobProgress],
        to_run: Sequence[int],
    ) -> None:
        self._sweep = sweep
        self._engine = engine
        self._stop = stop
        self._search = search
        self._display = display
        self._jobs = jobs
        self._queue = deque(to_run)
        self._start_times: dict[int, float] = {}
        self._num_tries: Counter[int] = Counter()
        self._pruned = set[int]()
        self._is_stopping = False
        self._has_failed = False

    def run(self) -> None:
        """Start, poll and prune jobs until none runs and none is left to start."""
        while True:
            self._pass_stop_on()
            self._start_jobs()
            if not self._engine.running_jobs:
                return
            for number, code in self._engine.poll(POLL_S):
                self._handle_end(number, code)
            self._prune_trials()
            self._display.refresh(self._engine.running_jobs, self._start_times)

    def _pass_stop_on(self) -> None:
        """Ask running jobs to save and end, once, if the sweep is to stop."""
        stops_at_failure = self._has_failed and self._sweep.settings.on_failure == "stop"
        if not self._is_stopping and (self._stop() or stops_at_failure):
            self._engine.signal(signal.SIGTERM, self._engine.running_jobs - self._pruned)
            self._is_stopping = True

    def _start_jobs(self) -> None:
        """Start jobs, of the queue or of a new trial, up to the number that may run at a time."""
        limit = self._sweep.settings.jobs
        while not self._is_stopping and len(self._engine.running_jobs) < limit and not self._stop():
            if not self._queue and self._search:
                self._queue += self._search.next_jobs()
                self._display.print_lines(self._search.pop_remarks())
            if not self._queue:
                return
            number = self._queue.popleft()
            self._sweep.append_journal(number, "started")
            self._start_times[number], self._jobs[number] = monotonic(), JobProgress("running")
            self._display.started(number)
            self._engine.start(number)

    def _handle_end(self, number: int, code: int | None) -> None:
        """Record the end of a job; queue it again if its engine lost it, or if a failed job is to be retried."""
        if code is None and number not in self._pruned:
            self._queue.append(number)
            return
        self._sweep.append_journal(number, "ended", code)
        self._jobs[number] = job = self._sweep.read_progress([number])[number]
        self._num_tries[number] += 1
        retry = job.status == "failed" and self._should_retry(number, code) and not self._is_stopping
        self._has_failed |= job.status == "failed" and not retry
        self._display.ended(number, monotonic() - self._start_times[number], retry)
        if retry:
            self._queue.append(number)
        elif self._search:
            self._search.tell(number, job)

    def _should_retry(self, number: int, code: int | None) -> bool:
        max_tries = 2 if self._sweep.settings.on_failure == "retry" else 1
        return self._num_tries[number] < max_tries and code not in PERMANENT_FAILURES

    def _prune_trials(self) -> None:
        if self._search is None or self._is_stopping:
            return
        for number in self._search.trials_to_prune(self._engine.running_jobs):
            self._sweep.append_journal(number, "pruned")  # before the signal: after a kill a resume leaves it alone
            self._engine.signal(signal.SIGTERM, [number])
            self._pruned.add(number)


def _job_context(sweep: SweepDirectory, numbers: Sequence[int]) -> JobContext:
    configs = [*map(sweep.config_path, numbers), *sweep.path.glob("bases/*.yaml")]
    return JobContext(
        path=str(sweep.path),
        threads=sweep.settings.threads,
        gpus=tuple(visible_gpus()),
        trust=sweep.trust,
        is_resumed=sweep.is_resumed,
        command=tuple(sys.argv),
        imports=tuple(sys.path),
        modules=tuple(_modules_of(configs)),
    )


def _modules_of(configs: Iterable[Path]) -> list[str]:
    """Return this package's modules that the configs name as targets, and the slow libraries that those import."""
    names = set[str]()
    for file in configs:
        text = ""
        with contextlib.suppress(OSError, ValueError):  # the job itself will report it
            text = read_text(file)
        for line in text.splitlines():
            key, _, target = line.strip().partition(": ")
            if key == "_target_" and target.startswith("bigmodel."):
                module = target.rpartition(".")[0]
                library = _SLOW_LIBRARIES.get(module.rpartition(".")[2])
                names |= {module, library} if library else {module}
    return sorted(names)
