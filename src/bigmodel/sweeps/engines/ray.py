"""A sweep's jobs on a Ray cluster. The optional extra `ray`.

Ray ends the jobs of a program that dies, so a second start of the sweep finds none of them at work.
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
from bigmodel.sweeps.engines.remote_job import RemoteJob, StartRecords, remote_context

_TRIES = 3  # of a job whose machine was lost, by Ray itself


class RayEngine:
    """The jobs of the sweep at `path`; `running` are those that Ray has, waiting for a machine or not."""

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
        try:
            import ray
        except ImportError:
            raise ConfigError("hydra/launcher=ray: ray is not installed: pip install 'bigmodel-train[ray]'") from None
        self.running_jobs: set[int] = set()
        self._ray, self._path, self._options, self._starts = ray, path, options, StartRecords(path)
        self._facts: dict[str, Any] = {}
        self._started: dict[int, tuple[str, Any]] = {}  # token and Ray's reference
        self._stopping = set[int]()

    def __enter__(self) -> RayEngine:
        """Join the cluster.

        Raises:
            ConfigError: there is none.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        local = {"include_dashboard": False} if self._options["address"] == "local" else {}
        try:
            self._ray.init(address=self._options["address"], log_to_driver=False, logging_level=logging.ERROR, **local)
        except Exception as error:  # of as many kinds as there are ways not to find or to start one
            self._ray.shutdown()
            raise ConfigError(
                f"hydra/launcher=ray: {first_line(error)}; start a cluster with `ray start --head`, name one in "
                "RAY_ADDRESS, or take hydra.launcher.address=local"
            ) from None
        finally:
            for number, handler in before.items():  # Ray's own would end this process before the jobs have saved
                signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster, which ends what still runs."""
        self._ray.shutdown()

    def configure(self, facts: Mapping[str, Any]) -> None:
        self._facts = remote_context(facts) | {"gpus": []}  # Ray gives them out

    def start(self, number: int) -> None:
        token = secrets.token_hex(8)
        self._starts.begin(number, token)
        self.running_jobs.add(number)
        self._stopping.discard(number)
        task = self._ray.remote(_run).options(
            name=f"bigmodel-{number}",
            num_cpus=self._options["num_cpus"],
            num_gpus=self._options["num_gpus"],
            max_retries=_TRIES,
        )
        self._started[number] = (token, task.remote(RemoteJob(self._facts, number, token)))

    def signal(self, number: int, jobs: Iterable[int]) -> None:
        """Have the jobs save and end; those that wait leave Ray's queue."""
        self._stopping |= self.running_jobs.intersection(jobs)
        for job in self.running_jobs.intersection(jobs):
            self._ray.cancel(self._started[job][1], force=False)

    def poll(self, seconds: float) -> list[JobEnd]:
        time.sleep(seconds)  # without the interpreter's lock, unlike a wait for Ray
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
        """The exit code of a job that could not tell it, by what Ray says of it."""
        errors = self._ray.exceptions
        try:
            self._ray.get(reference)
            word = "it ended without a word"
        except errors.OutOfMemoryError:
            return -signal.SIGKILL
        except errors.RayTaskError as error:  # raised on the other machine, before the job began
            word = first_line(error.cause or error)
        except errors.RayError:  # cancelled, or its machine is gone: it can go on from its checkpoint
            return Interrupted.exit_code
        with contextlib.suppress(OSError), append_to(self._path / "jobs" / f"{number}.txt") as file:
            file.write(f"error: {word}\n")
        return Interrupted.exit_code if number in self._stopping else 1


def _run(job: RemoteJob) -> None:
    # Ray cancels by what Python makes of SIGINT, which is nothing in a cluster that was started in the background
    signal.signal(signal.SIGINT, job.request_stop)
    job()
