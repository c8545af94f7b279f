"""How a sweep's jobs are run: how many at a time, with how many threads, and what follows a failure."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from bigmodel.errors import ConfigError
from bigmodel.sweeps.engines.options import LOCAL, is_local, threads_per_job

OnFailure = Literal["continue", "stop", "retry"]
_ON_FAILURE = ("continue", "stop", "retry")


@dataclass(frozen=True)
class SweepOptions:
    """`jobs` at a time, each with `threads` of the CPU, run by `engine`."""

    jobs: int
    threads: int
    on_failure: OnFailure
    engine: str = LOCAL
    options: Mapping[str, Any] = field(default_factory=dict)


def parse_sweep_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """`jobs` ("auto" or a number) and `on_failure`, those of the two that are given, checked.

    Raises:
        ConfigError: a line for each that is wrong.
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
    kinds: set[str],
    wanted: int,
    gpus: int,
    engine: str = LOCAL,
    options: Mapping[str, Any] | None = None,
) -> SweepOptions:
    """Fix what is `auto`, for `wanted` jobs on devices of these kinds, with so many NVIDIA GPUs in sight.

    On a CPU a job a core, one thread each: a second thread speeds up no small model as much as a second job does. On
    GPUs, a job each. OMP_NUM_THREADS is heard, as in any run. An engine of other machines is handed all jobs at
    once, for the queue is its own, and each has as many threads as cores.
    """
    options = dict(options or {})
    if not is_local(engine, options):
        at_once = max(1, wanted if jobs == "auto" else min(jobs, wanted))
        return SweepOptions(at_once, threads_per_job(options), cast(OnFailure, on_failure), engine, options)
    cores = _cores()
    if jobs == "auto":
        on_gpus = gpus or (platform.system() == "Darwin" and platform.machine() == "arm64")  # Apple's has one
        most = cores if kinds <= {"cpu"} or not on_gpus else max(1, gpus)
    else:
        most = jobs
    at_once = max(1, min(most, wanted))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdigit() and int(asked) else max(1, cores // at_once)
    return SweepOptions(at_once, threads, cast(OnFailure, on_failure), engine, options)


def _cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
