"""Directory of a sweep: snapshots of its configs, its journal, and how far each job has got.

    outputs/sweeps/DATE_TIME-SUFFIX/
      sweep.json          the jobs: number, overrides, monitor, epochs; written after their configs
      journal.jsonl       a synced line for each start and end of a job, and for each trial that is pruned
      jobs/3.yaml, 3.txt  the config snapshot of job 3, and what it printed
      3/                  its run directory, as of any run
      search.json, bases/ of a search: see `bigmodel.sweeps.search.plan`; its jobs are added as trials are asked for

A job is done if its run directory says so. The journal knows the rest: how often a job was started, and how it ended
where the job could not record that.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bigmodel.config.seal import seal
from bigmodel.errors import ConfigError, Interrupted, StorageError
from bigmodel.runs.lock import RunLock
from bigmodel.runs.records import FINISHED, is_sweep
from bigmodel.runs.tolerant_json import last_bytes, read_json_or_empty, tail_jsonl
from bigmodel.safe_files import fsync_directory, own_folder, read_text, refuse_foreign_files, write_json, write_text
from bigmodel.sweeps.engines.options import LOCAL
from bigmodel.sweeps.state.jobs import PERMANENT_FAILURES, JobProgress, JobSpec
from bigmodel.sweeps.state.journal import append_record, read_records
from bigmodel.sweeps.state.settings import SweepOptions

_LOCK_TIMEOUT_S = 10.0  # jobs of a sweep that was killed hold its lock until they end, seconds on a GPU
_FORMER_ENGINE = "vectorized"  # trained several jobs in one process; its sweeps are resumed with one process per job


class SweepDirectory:
    """A sweep's directory, locked while this object is in use unless it is opened to read only."""

    def __init__(self, path: Path, final: Path | None = None, to_write: bool = True) -> None:
        """Open the existing directory of a sweep, or of one that is about to start.

        The first `write_manifest` renames it to `final`: a kill before that leaves nothing that looks like a sweep.

        Raises:
            StorageError: another process runs this sweep, or `sweep.json` is damaged.
            OSError: the directory holds a link where the sweep writes.
        """
        self.path, self._final = path, final  # where it lies now, and in the end
        for name in ("jobs", "bases", "plots") if to_write else ():
            refuse_foreign_files(path / name)
        self._lock = RunLock(path, _LOCK_TIMEOUT_S) if to_write else None
        self.jobs: dict[int, JobSpec] = {}
        self.trust: tuple[str, ...] = ()  # given when the sweep was started; a resume must give it again
        self.trials: int | None = None  # for a search, the number of jobs in the end
        self.jobs_per_trial = 1
        self._settings: SweepOptions | None = None
        self._common_overrides: set[str] = set()
        self.is_resumed = is_sweep(path)  # its configs may have been written elsewhere, by someone else
        if self.is_resumed:
            self._read_manifest()

    @property
    def lock(self) -> RunLock:
        assert self._lock is not None, "the sweep is open to read only"
        return self._lock

    def release(self) -> None:
        """Release the lock, so that another process can resume the sweep."""
        if self._lock is not None:
            self._lock.release()

    @property
    def settings(self) -> SweepOptions:
        assert self._settings is not None, "the sweep has no manifest yet"
        return self._settings

    def snapshot_configs(
        self, jobs: Iterable[tuple[JobSpec, str]], settings: SweepOptions, trust: Sequence[str]
    ) -> None:
        """Add jobs with their configs as YAML, so that no later edit of other files changes them."""
        own_folder(self.path / "jobs")
        for job, text in jobs:
            write_text(self.config_path(job.number), seal(text))
            self.jobs[job.number] = job
        fsync_directory(self.path / "jobs")
        self.trust = tuple(trust)
        self.write_manifest(settings)

    def write_manifest(self, settings: SweepOptions) -> None:
        """Write `sweep.json` with these settings."""
        self._settings = settings
        self._find_common_overrides()
        manifest = {
            "schema": 1,
            "settings": asdict(settings),
            "trust": self.trust,
            "trials": self.trials,
            "jobs": [asdict(job) for job in self.jobs.values()],
        }
        write_json(self.path / "sweep.json", manifest)
        if self._final is not None:
            os.rename(self.path, self._final)
            fsync_directory(self._final.parent)
            self.path, self._final = self._final, None

    def run_path(self, number: int) -> Path:
        return self.path / str(number)

    def config_path(self, number: int) -> Path:
        return self.path / "jobs" / f"{number}.yaml"

    def log_path(self, number: int) -> Path:
        return self.path / "jobs" / f"{number}.txt"

    def distinct_overrides(self, number: int) -> list[str]:
        """Return a job's overrides without those that all jobs have."""
        return [text for text in self.jobs[number].overrides if text not in self._common_overrides]

    def append_journal(self, number: int, event: str, code: int | None = None) -> None:
        """Record "started", "pruned" or "ended" of a job; the record is on the disk when this returns."""
        append_record(self.path / "journal.jsonl", number, event, code)

    def journal_events(self) -> Iterator[tuple[int, str]]:
        """Yield job numbers with their journal events, in order."""
        for record in read_records(self.path / "journal.jsonl"):
            if record.get("job") in self.jobs:
                yield record["job"], str(record.get("event"))

    def read_progress(self, numbers: Collection[int] | None = None) -> dict[int, JobProgress]:
        """Return how far these jobs have got, or all jobs. A job without a recorded end counts as interrupted."""
        found = {number: JobProgress() for number in (self.jobs if numbers is None else numbers)}
        for record in read_records(self.path / "journal.jsonl"):
            job = found.get(record.get("job", -1))
            if job is not None and record.get("event") == "started":
                job.status, job.code = "interrupted", None
            elif job is not None and record.get("event") == "pruned":
                job.status = "pruned"
            elif job is not None and job.status != "pruned" and isinstance(record.get("code"), int):
                job.code = record["code"]
                job.status = "interrupted" if job.code == Interrupted.exit_code else "failed"
        for number, job in found.items():
            self._add_summary(number, job)
        return found

    def is_final(self, job: JobProgress) -> bool:
        """Whether a resume leaves the job alone. A diverged trial of a search is a result, so it is final too."""
        if self.trials is not None and job.status == "failed":
            return job.code in PERMANENT_FAILURES
        return job.status in ("done", "pruned")

    def num_remaining(self, jobs: Mapping[int, JobProgress]) -> int:
        """Return the number of jobs that are still to be run, or run again."""
        not_asked_for = 0 if self.trials is None else max(0, self.trials - len(jobs))
        return not_asked_for + sum(not self.is_final(job) for job in jobs.values())

    def summary(self, number: int) -> dict[str, Any]:
        """Return a job's `summary.json`; empty without one."""
        return read_json_or_empty(self.run_path(number) / "summary.json")

    def mark_pruned(self, number: int) -> None:
        """Set the run's state to pruned; the run itself knows only that it was stopped."""
        summary = self.summary(number)
        if summary.get("state") == "interrupted":
            write_json(self.run_path(number) / "summary.json", summary | {"state": "pruned"})

    def refresh_progress(self, number: int, job: JobProgress) -> None:
        """Update a running job's step, progress and metric from the end of its `metrics.jsonl`."""
        spec = self.jobs[number]
        split, _, name = spec.monitor.partition("/")
        with contextlib.suppress(TypeError, ValueError, LookupError, StopIteration):
            events = list(tail_jsonl(self.run_path(number) / "metrics.jsonl"))
            job.step, job.progress = int(events[-1]["step"]), min(1.0, events[-1]["epoch"] / (spec.epochs or 1))
            job.value = next(float(event[name]) for event in reversed(events) if event["split"] == split)

    def last_error(self, number: int) -> str:
        """Return the last error that a job printed; empty if it printed none."""
        with contextlib.suppress(OSError):
            lines = last_bytes(self.log_path(number)).decode("utf-8", "replace").splitlines()
            for line in reversed(lines):
                if line.startswith("error: ") and "run again with -v" not in line:
                    return line.removeprefix("error: ")
        return ""

    def _add_summary(self, number: int, job: JobProgress) -> None:
        summary = self.summary(number)
        if summary.get("state") in FINISHED:
            job.status, job.code, job.progress = "done", 0, 1.0
        with contextlib.suppress(TypeError, ValueError, LookupError):
            job.step, job.seconds = int(summary["step"]), float(summary["seconds"])
            job.value = float(summary["best"]["value"])

    def _find_common_overrides(self) -> None:
        """Find the overrides that need not be shown; a search chooses each override, so all are shown."""
        is_search = self.trials is not None
        self._common_overrides = set() if is_search else common_overrides(job.overrides for job in self.jobs.values())

    def _read_manifest(self) -> None:
        try:
            manifest = json.loads(read_text(self.path / "sweep.json"))
            settings = manifest["settings"]
            if settings.get("engine") == _FORMER_ENGINE:
                settings = settings | {"engine": LOCAL, "options": {}}
            self._settings = SweepOptions(**settings)
            self.trust = tuple(map(str, manifest["trust"]))
            for job in manifest["jobs"]:
                job.pop("make", None)  # written for the former engine
                self.jobs[int(job["number"])] = JobSpec(**job | {"overrides": tuple(job["overrides"])})
            self.trials = None if manifest.get("trials") is None else int(manifest["trials"])
            self._find_common_overrides()
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            self.release()
            raise StorageError(f"{self.path / 'sweep.json'}: damaged: {error}; start a new sweep") from error


def find_sweep(path: str) -> Path:
    """Return the directory of an existing sweep.

    Raises:
        ConfigError: there is no sweep at `path`.
    """
    if is_sweep(Path(path)):
        return Path(path)
    if (Path(path) / "config.yaml").is_file():
        raise ConfigError(f"resume: '{path}' is a run, not a sweep; leave out -m")
    raise ConfigError(f"resume: there is no sweep at '{path}' (no sweep.json in it); sweeps lie under outputs/sweeps/")


def common_overrides(overrides: Iterable[Sequence[str]]) -> set[str]:
    """Return the overrides that all jobs have; none for a single job."""
    sets = [set(texts) for texts in overrides]
    return set.intersection(*sets) if len(sets) > 1 else set()
