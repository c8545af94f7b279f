"""Taking a sweep to its end: which job is started when, and what follows when one ends."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from bigmodel.commands.exit_codes import print_errors
from bigmodel.errors import Interrupted
from bigmodel.quoting import resume_command, trust_override
from bigmodel.runs.comparison.leaderboard import leaderboard
from bigmodel.runtime import gpus
from bigmodel.runtime.signals import StopRequest, in_words
from bigmodel.safe_files import read_text
from bigmodel.sweeps.engines.base import Engine
from bigmodel.sweeps.search.outcome import best_trial_lines
from bigmodel.sweeps.search.plan import read
from bigmodel.sweeps.state.directory import PERMANENT_FAILURES, JobProgress, SweepDirectory
from bigmodel.sweeps.table import SweepDisplay, print_job_table, print_line

if TYPE_CHECKING:
    from bigmodel.sweeps.search.study import OptunaSearch

POLL_S = 0.25  # between looks at the signals and at what the jobs have reached


def run_sweep(
    sweep: SweepDirectory,
    workers: Engine,
    numbers: Collection[int],
    trust: Sequence[str],
    stop: StopRequest,
    search: OptunaSearch | None = None,
) -> None:
    """Run those of `numbers` that are not done, and what a search asks for then, until all have ended or, stopped or
    signalled, have saved.
    """
    stop.defer()
    states = sweep.states(numbers)
    todo = [number for number, state in states.items() if not sweep.is_final(state)]
    queue = deque(todo)
    workers.configure(_facts(sweep, todo, trust))
    started: dict[int, float] = {}
    tries: Counter[int] = Counter()
    pruned = set[int]()
    signalled, failed = False, False
    closing = contextlib.closing(search) if search else contextlib.nullcontext()
    with SweepDisplay(sweep, states, len(todo)) as watch, closing:
        while True:
            if not signalled and (stop() or (failed and sweep.settings.on_failure == "stop")):
                workers.signal(signal.SIGTERM, workers.running_jobs - pruned)
                signalled = True
            while not signalled and len(workers.running_jobs) < sweep.settings.jobs and not stop():
                if not queue and search:
                    queue += _asked(search)
                    watch.told(search.remarks())
                if not queue:
                    break
                number = queue.popleft()
                sweep.append_journal(number, "started")
                started[number], states[number] = monotonic(), JobProgress("running")
                watch.started(number)
                workers.start(number)
            if not workers.running_jobs:
                break
            for number, code in workers.poll(POLL_S):
                if code is None and number not in pruned:
                    queue.append(number)
                    continue
                sweep.append_journal(number, "ended", code)
                states[number] = sweep.states([number])[number]
                tries[number] += 1
                again = (
                    states[number].status == "failed" and _should_retry(sweep, code, tries[number]) and not signalled
                )
                failed |= states[number].status == "failed" and not again
                watch.ended(number, monotonic() - started[number], again)
                if again:
                    queue.append(number)
                elif search:
                    search.tell(number, states[number])
            for number in search.trials_to_prune(workers.running_jobs) if search and not signalled else ():
                sweep.append_journal(
                    number, "pruned"
                )  # first, so that a kill does not make it a job to be gone on with
                workers.signal(signal.SIGTERM, [number])
                pruned.add(number)
            watch.refresh(workers.running_jobs, started)


def report_outcome(sweep: SweepDirectory, stop: StopRequest, trust: Sequence[str]) -> int:
    """Tell what has become of a sweep. Returns 0, or the exit code of the first job that failed.

    Raises:
        Interrupted: a signal came, and there are jobs that it kept from their end.
    """
    states = sweep.states()
    failed = [number for number, state in states.items() if state.status == "failed"]
    left = [number for number, state in states.items() if state.status in ("interrupted", "queued")]
    total = max(sweep.trials or 0, len(states))
    if failed:
        lines = [
            f"job {number} failed, {in_words(states[number].code or 0)}: "
            f"{sweep.last_error(number) or 'it left no word'}; see {sweep.log_path(number)}"
            for number in failed
        ]
        names = ", ".join(map(str, failed))
        again = f"; to run what is not done: {sweep_command(sweep, trust)}" if sweep.num_remaining(states) else ""
        print_errors([*lines, f"{len(failed)} of {total} jobs failed: {names}{again}"])
        sys.stderr.flush()
    print_results(sweep, trust)
    if stop() and (left or len(states) < total):
        told = f"stopped by {stop.name}: {len(states) - len(failed) - len(left)} of {total} jobs are done"
        raise Interrupted(f"{told}; go on with: {sweep_command(sweep, trust)}")
    codes = [states[number].code or 1 for number in failed] or [Interrupted.exit_code for _ in left]
    return 0 if not codes else codes[0] if codes[0] > 0 else 128 - codes[0]


def sweep_command(sweep: SweepDirectory, trust: Sequence[str]) -> str:
    """The command line that takes the sweep up again."""
    return resume_command(sweep.path, trust, multirun=True)


def print_results(sweep: SweepDirectory, trust: Sequence[str]) -> None:
    """What a sweep leaves: the table of its jobs, and what they found as a leaderboard and in files."""
    print_job_table(sweep)
    done = [number for number, state in sweep.states().items() if state.status == "done"]
    if done:
        print_line("")
        print_line(leaderboard(sweep.path))
    if done and sweep.trials is not None:
        print_line("")
        for line in best_trial_lines(sweep, read(sweep.path), done, trust_override(trust)):
            print_line(line)


def _asked(search: OptunaSearch) -> Sequence[int]:
    """The jobs of one more trial; nothing if there is none."""
    number = search.ask()
    return () if number is None else search.jobs(number)


def _should_retry(sweep: SweepDirectory, code: int | None, tries: int) -> bool:
    """Whether a job that failed is tried once more: because it is asked for, or since none was its own."""
    return tries < (2 if sweep.settings.on_failure == "retry" else 1) and code not in PERMANENT_FAILURES


def _facts(sweep: SweepDirectory, numbers: Sequence[int], trust: Sequence[str]) -> dict[str, Any]:
    """What the jobs' processes need to know."""
    return {
        "path": str(sweep.path),
        "threads": sweep.settings.threads,
        "gpus": [asdict(gpu) for gpu in gpus.visible_gpus()],
        "trust": [*trust],
        "taken_up": sweep.taken_up,
        "command": sys.argv,
        "imports": sys.path,
        "modules": _modules([*(sweep.config_path(number) for number in numbers), *sweep.path.glob("bases/*.yaml")]),
    }


def _modules(configs: Iterable[Path]) -> list[str]:
    """Modules that the jobs' own configs name; of others' only the slow ones that are known to be safe to share."""
    names = set[str]()
    for file in configs:
        text = ""
        with contextlib.suppress(OSError, ValueError):  # the job itself will tell
            text = read_text(file)
        for line in text.splitlines():
            key, _, target = line.strip().partition(": ")
            if key == "_target_" and target.startswith("bigmodel."):
                module = target.rpartition(".")[0]
                names.add(module)
                slow = {"torchvision_model": "torchvision", "timm_model": "timm"}.get(module.rpartition(".")[2])
                names |= {slow} if slow else set()
    return sorted(names)
