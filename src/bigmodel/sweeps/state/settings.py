"""How a sweep's jobs are run: how many at a time, with how many threads, by which engine, and what a failure does."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from bigmodel.errors import ConfigError
from bigmodel.runtime.gpus import visible_gpus
from bigmodel.sweeps.engines.options import LOCAL, is_local, threads_per_job, validate_options

OnFailure = Literal["continue", "stop", "retry"]
_ON_FAILURE = ("continue", "stop", "retry")


@dataclass(frozen=True)
class SweepOptions:
    """`jobs` at a time with `threads` each, run by `engine` with its `options`; the fields are keys of `sweep.json`."""

    jobs: int
    threads: int
    on_failure: OnFailure
    engine: str = LOCAL
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LauncherOptions:
    """Options of a launcher as given, checked, with `jobs=auto` not resolved yet."""

    jobs: int | Literal["auto"]
    on_failure: str
    engine: str = LOCAL
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether the jobs run on this machine."""
        return is_local(self.engine, self.options)

    def resolve(self, device_types: set[str], num_jobs: int, ranks: int) -> SweepOptions:
        """Resolve `jobs=auto` for `num_jobs` jobs of up to `ranks` ranks on devices of these types, with the GPUs of
        this machine.
        """
        num_gpus = len(visible_gpus()) if self.is_local else 0
        return resolve_parallelism(
            self.jobs, self.on_failure, device_types, num_jobs, num_gpus, self.engine, self.options, ranks
        )


def parse_launcher_options(given: Mapping[str, Any]) -> LauncherOptions:
    """Check what a launcher was configured with: `engine`, its `options`, `jobs` and `on_failure`.

    Raises:
        ConfigError: a line for each invalid option.
    """
    engine = str(given.get("engine", LOCAL))
    options = validate_options(engine, given.get("options", {}))
    return LauncherOptions(engine=engine, options=options, **parse_sweep_options(given))


def parse_sweep_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check `jobs` ("auto" or a number) and `on_failure`, and return those of the two that are given.

    Raises:
        ConfigError: a line for each invalid value.
    """
    problems = []
    jobs, on_failure = str(given.get("jobs", "auto")), str(given.get("on_failure", "continue"))
    if jobs != "auto" and not (jobs.isascii() and jobs.isdigit() and int(jobs[:9]) > 0):
        problems.append(f"jobs: must be auto or a whole number at least 1, not {jobs[:80]!r}")
    if on_failure not in _ON_FAILURE:
        problems.append(f"on_failure: there is no {on_failure[:80]!r}; choices: {', '.join(_ON_FAILURE)}")
    if problems:
        raise ConfigError(*problems)
    checked = {"jobs": jobs if jobs == "auto" else int(jobs[:9]), "on_failure": on_failure}
    return {key: value for key, value in checked.items() if key in given}


def resolve_parallelism(
    jobs: int | Literal["auto"],
    on_failure: str,
    device_types: set[str],
    num_jobs: int,
    num_gpus: int,
    engine: str = LOCAL,
    options: Mapping[str, Any] | None = None,
    ranks: int = 1,
) -> SweepOptions:
    """Resolve `jobs=auto` and the threads of each job.

    On a CPU: one single-threaded job per core, because a second thread speeds up a small model less than a second job
    does. On GPUs: one job per GPU. Jobs of several ranks are as many fewer. On a remote engine: all jobs at once, which
    it queues, with a thread per core that each is given. OMP_NUM_THREADS overrides the thread count on this machine.
    """
    options = dict(options or {})
    if not is_local(engine, options):
        at_once = max(1, num_jobs if jobs == "auto" else min(jobs, num_jobs))
        return SweepOptions(at_once, threads_per_job(options), cast(OnFailure, on_failure), engine, options)
    cores = _cores()
    if jobs == "auto":
        has_apple_gpu = platform.system() == "Darwin" and platform.machine() == "arm64"
        is_on_cpu = device_types <= {"cpu"} or not (num_gpus or has_apple_gpu)
        limit = (cores if is_on_cpu else num_gpus) // ranks
    else:
        limit = jobs
    at_once = max(1, min(limit, num_jobs))
    omp_threads = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(omp_threads) if omp_threads.isdigit() and int(omp_threads) else max(1, cores // at_once)
    return SweepOptions(at_once, threads, cast(OnFailure, on_failure), engine, options)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
