"""A sweep's directory: its frozen configs, its journal, and what has become of each job.

    outputs/sweeps/DATE_TIME-SUFFIX/
      sweep.json          the jobs: number, overrides, monitor, epochs; written after their configs
      journal.jsonl       a line for each start and each end of a job, synced; and for each trial that is pruned
      jobs/3.yaml, 3.txt  the frozen config of job 3, and what it wrote to its terminal
      3/                  its run directory, as any other
      search.json, bases/ of a search: see `bigmodel.sweeps.search.plan`; its jobs are frozen as they are asked for

Whether a job is done is what its run directory says. The journal tells the rest: how often it was started, and how it
ended where it could not write that down itself.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from bigmodel import safe_files as durable
from bigmodel.config.seal import seal
from bigmodel.errors import ConfigError, DivergedError, Interrupted, StorageError
from bigmodel.runs.lock import RunLock
from bigmodel.runs.records import is_sweep
from bigmodel.runs.tolerant_json import ends_with_newline, last_bytes, parse_jsonl, read_json_or_empty, tail_jsonl
from bigmodel.sweeps.engines.options import LOCAL
from bigmodel.sweeps.state.settings import SweepOptions
from bigmodel.tasks.number_defaults import monitor_of

PERMANENT_FAILURES = (ConfigError.exit_code, DivergedError.exit_code)  # a second try would end as the first
_DONE = ("done", "early_stopped")
_PATIENCE_S = 10.0
_FORMER_ENGINE = "vectorized"  # trained several jobs in one process; sweeps that began with it go on without


@dataclass(frozen=True)
class JobSpec:
    """What is known of a job before it starts. `monitor` is the metric that decides its best, `device` the kind it asks
    for.
    """

    number: int
    overrides: tuple[str, ...]
    monitor: str
    epochs: float
    device: str = "auto"


def job_spec(number: int, words: Sequence[str], tree: Mapping[str, Any]) -> JobSpec:
    """Of a job with this config."""
    kind = str(tree["device"].get("kind", "cpu"))
    return JobSpec(number, tuple(words), monitor_of(tree), float(tree["epochs"]), kind)


@dataclass
class JobProgress:
    """What has become of a job: queued, running, done, failed, interrupted, or pruned by a search.

    `code` is its last exit code, negative for a signal; `value` its best monitored metric, or while it runs the last;
    `progress` a fraction of the whole run.
    """

    status: str = "queued"
    code: int | None = None
    step: int = 0
    progress: float = 0.0
    value: float | None = None
    seconds: float = 0.0


class SweepDirectory:
    """A sweep's directory, locked while this object is in use, unless it is for looking alone."""

    def __init__(self, path: Path, final: Path | None = None, to_write: bool = True) -> None:
        """Take an existing directory, of a sweep that is there or of one to be frozen. With its first `sweep.json`
        it becomes `final`: what is killed before leaves nothing that looks like a sweep.

        Raises:
            StorageError: another process runs this sweep, or `sweep.json` is damaged.
            OSError: the directory holds a link where the sweep writes.
        """
        self.path, self._final = path, final
        for name in ("jobs", "bases", "plots") if to_write else ():
            durable.refuse_foreign_files(path / name)
        self._lock = _locked(path) if to_write else None
        self.entries: dict[int, JobSpec] = {}
        self.trust: tuple[str, ...] = ()  # what the sweep was started with; whoever goes on with it grants it anew
        self.trials: int | None = None  # of a search: how many jobs there will be in the end
        self.width = 1  # jobs of one trial of a search
        self._settings: SweepOptions | None = None
        self._shared: set[str] = set()
        self.taken_up = is_sweep(path)  # it was begun elsewhere, maybe by a stranger
        if self.taken_up:
            self._read()

    @property
    def lock(self) -> RunLock:
        assert self._lock is not None, "the sweep is looked at alone"
        return self._lock

    def release(self) -> None:
        """Let another process take the sweep up."""
        if self._lock is not None:
            self._lock.release()

    @property
    def settings(self) -> SweepOptions:
        assert self._settings is not None, "nothing was frozen yet"
        return self._settings

    def snapshot_configs(
        self, jobs: Iterable[tuple[JobSpec, str]], settings: SweepOptions, trust: Sequence[str]
    ) -> None:
        """Add jobs with their configs as YAML: from here on nothing that is edited elsewhere changes them."""
        durable.own_folder(self.path / "jobs")
        for job, text in jobs:
            file = self.config_path(job.number)
            durable.write_text(file, seal(text))
            self.entries[job.number] = job
        durable.fsync_directory(self.path / "jobs")
        self.trust = tuple(trust)
        self.write_manifest(settings)

    def write_manifest(self, settings: SweepOptions) -> None:
        """Note how the jobs are run."""
        self._settings = settings
        self._share()
        entries = [asdict(job) for job in self.entries.values()]
        known = {"schema": 1, "settings": asdict(settings), "trust": self.trust, "trials": self.trials, "jobs": entries}
        durable.write_json(self.path / "sweep.json", known)
        if self._final is not None:
            os.rename(self.path, self._final)
            durable.fsync_directory(self._final.parent)
            self.path, self._final = self._final, None

    @property
    def _journal(self) -> Path:
        return self.path / "journal.jsonl"

    def run_path(self, number: int) -> Path:
        return self.path / str(number)

    def config_path(self, number: int) -> Path:
        return self.path / "jobs" / f"{number}.yaml"

    def log_path(self, number: int) -> Path:
        return self.path / "jobs" / f"{number}.txt"

    def distinct_overrides(self, number: int) -> list[str]:
        """A job's overrides without those that all jobs share."""
        return [text for text in self.entries[number].overrides if text not in self._shared]

    def append_journal(self, number: int, event: str, code: int | None = None) -> None:
        """Add "started", "pruned" or "ended" to the journal, on the disk when this returns."""
        record = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), "job": number, "event": event}
        line = json.dumps(record if code is None else record | {"code": code}) + "\n"
        new = not self._journal.exists()
        with open(durable.open_own(self._journal, os.O_RDWR | os.O_APPEND), "ab+") as file:
            if file.tell() and not ends_with_newline(file.fileno(), file.tell()):
                line = "\n" + line  # of a line that a kill has torn, nothing is kept
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            durable.fsync_directory(self.path)

    def states(self, of: Collection[int] | None = None) -> dict[int, JobProgress]:
        """Of these jobs, else of all. A job that was running when everything was killed is interrupted."""
        states = {number: JobProgress() for number in (self.entries if of is None else of)}
        for record in self._events():
            state = states.get(record.get("job", -1))
            if state is not None and record.get("event") == "started":
                state.status, state.code = "interrupted", None
            elif state is not None and record.get("event") == "pruned":
                state.status = "pruned"
            elif state is not None and state.status != "pruned" and isinstance(record.get("code"), int):
                state.code = record["code"]
                state.status = "interrupted" if state.code == Interrupted.exit_code else "failed"
        for number, state in states.items():
            self._look(number, state)
        return states

    def journal_events(self) -> Iterator[tuple[int, str]]:
        """Jobs and what the journal says of them, in order."""
        for record in self._events():
            if record.get("job") in self.entries:
                yield record["job"], str(record.get("event"))

    def is_final(self, state: JobProgress) -> bool:
        """Whether a resume leaves the job alone. That a trial of a search diverged is an answer too."""
        if self.trials is not None and state.status == "failed":
            return state.code in PERMANENT_FAILURES
        return state.status in ("done", "pruned")

    def num_remaining(self, states: Mapping[int, JobProgress]) -> int:
        """How many jobs are still to be run, or run again."""
        unasked = 0 if self.trials is None else max(0, self.trials - len(states))
        return unasked + sum(not self.is_final(state) for state in states.values())

    def summary(self, number: int) -> dict[str, Any]:
        """A job's `summary.json`; empty where it has none."""
        return read_json_or_empty(self.run_path(number) / "summary.json")

    def mark_pruned(self, number: int) -> None:
        """Say so in the run, which knows only that it was stopped."""
        summary = self.summary(number)
        if summary.get("state") == "interrupted":
            durable.write_json(self.run_path(number) / "summary.json", summary | {"state": "pruned"})

    def refresh_progress(self, number: int, state: JobProgress) -> None:
        """Bring what a job that runs has reached into its state, from the end of its `metrics.jsonl`."""
        job = self.entries[number]
        split, _, name = job.monitor.partition("/")
        with contextlib.suppress(TypeError, ValueError, LookupError, StopIteration):
            events = list(tail_jsonl(self.run_path(number) / "metrics.jsonl"))
            state.step, state.progress = int(events[-1]["step"]), min(1.0, events[-1]["epoch"] / (job.epochs or 1))
            state.value = next(float(event[name]) for event in reversed(events) if event["split"] == split)

    def last_error(self, number: int) -> str:
        """The last error that a job printed; empty if it had no time to."""
        with contextlib.suppress(OSError):
            lines = last_bytes(self.log_path(number)).decode("utf-8", "replace").splitlines()
            for line in reversed(lines):
                if line.startswith("error: ") and "run again with -v" not in line:
                    return line.removeprefix("error: ")
        return ""

    def _look(self, number: int, state: JobProgress) -> None:
        summary = self.summary(number)
        if summary.get("state") in _DONE:
            state.status, state.code, state.progress = "done", 0, 1.0
        with contextlib.suppress(TypeError, ValueError, LookupError):
            state.step, state.seconds = int(summary["step"]), float(summary["seconds"])
            state.value = float(summary["best"]["value"])

    def _share(self) -> None:
        """What all jobs have; of a search each override was chosen, and is told."""
        self._shared = (
            common_overrides(job.overrides for job in self.entries.values()) if self.trials is None else set()
        )

    def _events(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(OSError):
            yield from parse_jsonl(durable.read_bytes(self._journal, durable.LARGEST_LINES))

    def _read(self) -> None:
        try:
            known = json.loads(durable.read_text(self.path / "sweep.json"))
            how = known["settings"]
            if how.get("engine") == _FORMER_ENGINE:
                how = how | {"engine": LOCAL, "options": {}}
            self._settings, self.trust = SweepOptions(**how), tuple(map(str, known["trust"]))
            for job in known["jobs"]:
                job.pop("make", None)  # of the former engine
                self.entries[int(job["number"])] = JobSpec(**job | {"overrides": tuple(job["overrides"])})
            self.trials = None if known.get("trials") is None else int(known["trials"])
            self._share()
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            self.release()
            raise StorageError(f"{self.path / 'sweep.json'}: damaged: {error}; start the sweep anew") from error


def find_sweep(path: str) -> Path:
    """The directory of a sweep that was started before. Raises ConfigError if there is none."""
    if is_sweep(Path(path)):
        return Path(path)
    if (Path(path) / "config.yaml").is_file():
        raise ConfigError(f"resume: '{path}' is a run, not a sweep; leave out -m")
    raise ConfigError(f"resume: there is no sweep at '{path}' (no sweep.json in it); sweeps lie under outputs/sweeps/")


def common_overrides(overrides: Iterable[Sequence[str]]) -> set[str]:
    """The overrides that all of several jobs have."""
    sets = [set(words) for words in overrides]
    return set.intersection(*sets) if len(sets) > 1 else set()


def _locked(path: Path) -> RunLock:
    """The sweep's lock; the jobs of one that was killed are given time to die, which those on a GPU need."""
    deadline = monotonic() + _PATIENCE_S
    while True:
        try:
            return RunLock(path)
        except StorageError:
            holder = durable.read_text(path / ".lock").strip()
            if monotonic() > deadline or Path(f"/proc/{holder}").exists():
                raise
