"""Engine for a Ray cluster; needs the optional dependency `ray`.

Ray ends the jobs of a process that dies, so a resumed sweep finds none of them running.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bigmodel.errors import ConfigError, Interrupted
from bigmodel.formatting import first_line
from bigmodel.safe_files import append_to
from bigmodel.sweeps.engines.base import JobEnd
from bigmodel.sweeps.engines.job_context import JobContext
from bigmodel.sweeps.engines.remote_job import RemoteJob, StartRecords

_MAX_RETRIES = 3  # by Ray itself, of a job whose machine was lost


class RayEngine:
    """Jobs of the sweep at `path` as Ray tasks; `running_jobs` includes those that wait for a machine."""

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here sends no reports
        try:
            import ray
        except ImportError:
            raise ConfigError("hydra/launcher=ray: ray is not installed: pip install 'bigmodel-train[ray]'") from None
        self.running_jobs: set[int] = set()
        self._ray = ray
        self._path = path
        self._options = options
        self._starts = StartRecords(path)
        self._context = JobContext(str(path))
        self._started: dict[int, tuple[str, Any]] = {}  # token and Ray's reference by job
        self._stopping = set[int]()

    def __enter__(self) -> RayEngine:
        """Join the cluster.

        Raises:
            ConfigError: there is no cluster, or it cannot be reached.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        local = {"include_dashboard": False} if self._options["address"] == "local" else {}
        try:
            self._ray.init(address=self._options["address"], log_to_driver=False, logging_level=logging.ERROR, **local)
        except Exception as error:  # Ray raises many types for a cluster that it cannot find or start
            self._ray.shutdown()
            raise ConfigError(
                f"hydra/launcher=ray: {first_line(error)}; start a cluster with `ray start --head`, name one in "
                "RAY_ADDRESS, or take hydra.launcher.address=local"
            ) from None
        finally:
            for number, handler in before.items():  # Ray's handlers would end this process before the jobs have saved
                signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster, which ends what still runs."""
        self._ray.shutdown()

    def configure(self, context: JobContext) -> None:
        self._context = context.for_remote(has_own_gpus=True)

    def start(self, number: int) -> None:
        token = secrets.token_hex(8)
        self._starts.begin(number, token)
        self.running_jobs.add(number)
        self._stopping.discard(number)
        task = self._ray.remote(_run).options(
            name=f"bigmodel-{number}",
            num_cpus=self._options["num_cpus"],
            num_gpus=self._options["num_gpus"],
            max_retries=_MAX_RETRIES,
        )
        self._started[number] = (token, task.remote(RemoteJob(self._context, number, token)))

    def signal(self, number: int, jobs: Iterable[int]) -> None:
        """Ask the jobs to save and end; those that wait leave Ray's queue."""
        self._stopping |= self.running_jobs.intersection(jobs)
        for job in self.running_jobs.intersection(jobs):
            self._ray.cancel(self._started[job][1], force=False)

    def poll(self, timeout_s: float) -> list[JobEnd]:
        time.sleep(timeout_s)  # releases the interpreter's lock, which `ray.wait` with a timeout does not
        references = [self._started[number][1] for number in self.running_jobs]
        if not references:
            return []
        ready = set(self._ray.wait(references, num_returns=len(references), timeout=0)[0])
        ended: list[JobEnd] = []
        for number in sorted(self.running_jobs):
            token, reference = self._started[number]
            if reference in ready:
                code = self._starts.code(number, token)
                ended.append(JobEnd(number, self._exit_code_from_ray(number, reference) if code is None else code))
        self.running_jobs -= {end.number for end in ended}
        return ended

    def _exit_code_from_ray(self, number: int, reference: Any) -> int:
        """Derive the exit code of a job that recorded none from Ray's exception."""
        errors = self._ray.exceptions
        try:
            self._ray.get(reference)
            reason = "the job ended without recording an exit code"
        except errors.OutOfMemoryError:
            return -signal.SIGKILL
        except errors.RayTaskError as error:  # raised on the other machine, before the job began
            reason = first_line(error.cause or error)
        except errors.RayError:  # cancelled, or its machine was lost: it can resume from its checkpoint
            return Interrupted.exit_code
        with contextlib.suppress(OSError), append_to(self._path / "jobs" / f"{number}.txt") as file:
            file.write(f"error: {reason}\n")
        return Interrupted.exit_code if number in self._stopping else 1


def _run(job: RemoteJob) -> None:
    # Ray cancels through Python's SIGINT handler, which a cluster that was started in the background lacks
    signal.signal(signal.SIGINT, job.request_stop)
    job()
