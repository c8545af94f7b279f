"""Engine for Slurm, through submitit; needs the optional dependency `slurm`.

The jobs outlive the sweep's process. Their Slurm ids are kept in the sweep's directory, so that a resumed sweep finds
those that still wait or run, and starts none of them twice.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, cast

from bigmodel.config.saved import load_snapshot
from bigmodel.errors import ConfigError, Interrupted
from bigmodel.quoting import resume_command
from bigmodel.safe_files import append_to
from bigmodel.sweeps.engines.base import JobEnd
from bigmodel.sweeps.engines.job_context import JobContext
from bigmodel.sweeps.engines.options import rank_count
from bigmodel.sweeps.engines.remote_job import RemoteJob, StartRecords

_STOPPED = Interrupted.exit_code
_SLURM_OPTIONS = ("partition", "account", "qos", "constraint", "signal_delay_s")
_ACTIVE = ("PENDING", "RUNNING", "REQUEUED", "REQUEUE_HOLD", "COMPLETING", "CONFIGURING", "SUSPENDED", "RESIZING")
_OUT_OF_MEMORY = "OUT_OF_ME"  # sacct may truncate the word
_FAILED = ("FAILED", "COMPLETED")  # of a job that recorded no exit code


class SlurmEngine:
    """Jobs of the sweep at `path` as Slurm jobs; `running_jobs` includes those that wait in the queue."""

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # submitit would print to our stdout
        try:
            import submitit  # noqa: F401 - takes a quarter of a second
        except ImportError:
            raise ConfigError(
                "hydra/launcher=slurm: submitit is not installed: pip install 'bigmodel-train[slurm]'"
            ) from None
        missing = [name for name in ("sbatch", "srun", "scancel", "sacct") if shutil.which(name) is None]
        if options["executor"] == "slurm" and missing:
            raise ConfigError(
                f"hydra/launcher=slurm: there is no {' and no '.join(missing)} on this machine; start the sweep on "
                "a login node, or try it here with hydra.launcher.executor=local"
            )
        self.running_jobs: set[int] = set()
        self._path, self._options = path, options
        self._starts = StartRecords(path)
        self._context = JobContext(str(path))
        self._submitted: dict[int, tuple[str, str]] = {}  # token and Slurm's id of jobs that have not ended
        self._ended_without_code: dict[int, float] = {}  # time at which Slurm first reported the end of the job
        self._stopping = set[int]()
        self._scheduler: _Scheduler = _ThisMachine() if options["executor"] == "local" else _Slurm()

    def __enter__(self) -> SlurmEngine:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave queued and running jobs with Slurm."""

    def configure(self, context: JobContext) -> None:
        """Set what the jobs are given, and find those that an earlier start of the sweep has submitted."""
        self._context = context.for_remote(has_own_gpus=self._options["executor"] == "slurm")
        for file in (self._path / "jobs").glob("*.start.json"):
            number = int(file.name.partition(".")[0])
            last = self._starts.last(number)
            if "id" in last and self._starts.code(number, last["token"]) is None:
                self._submitted[number] = (last["token"], last["id"])
        self._scheduler.update(name for _, name in self._submitted.values())
        self._submitted = {
            n: (token, name) for n, (token, name) in self._submitted.items() if self._scheduler.is_active(name)
        }

    def start(self, number: int) -> None:
        """Submit a job, unless an earlier start of the sweep has done so and it still waits or runs.

        Raises:
            ConfigError: Slurm rejects it.
        """
        self.running_jobs.add(number)
        self._stopping.discard(number)
        if number in self._submitted:
            return
        token = secrets.token_hex(8)
        self._starts.begin(number, token)  # starts with an older token do nothing from now on
        name = self._submit(number, token)
        self._starts.begin(number, token, id=name)
        self._submitted[number] = (token, name)

    def signal(self, number: int, jobs: Iterable[int]) -> None:
        """Ask the jobs to save and end; those that wait leave Slurm's queue."""
        running = self.running_jobs.intersection(jobs)
        self._stopping |= running
        self._scheduler.stop([self._submitted[job][1] for job in running])

    def poll(self, timeout_s: float) -> list[JobEnd]:
        time.sleep(timeout_s)
        names = (self._submitted[number][1] for number in self.running_jobs)
        self._scheduler.update(names, often=bool(self._stopping))
        ended: list[JobEnd] = []
        for number in sorted(self.running_jobs):
            token, name = self._submitted[number]
            final_state = self._scheduler.final_state(name)
            code = self._starts.code(number, token)
            if code == _STOPPED and not final_state and number not in self._stopping:
                continue  # Slurm has stopped the job, and may queue it again
            if code is None and final_state:
                code = self._exit_code_from_scheduler(number, name, final_state)
            if code is not None:
                self._ended_without_code.pop(number, None)
                del self._submitted[number]
                ended.append(JobEnd(number, code))
        self.running_jobs -= {end.number for end in ended}
        return ended

    def _submit(self, number: int, token: str) -> str:
        """Submit a job, and return its Slurm id. Raises ConfigError."""
        import submitit

        options = self._options
        executor = submitit.AutoExecutor(
            self._path.resolve() / "jobs" / "slurm",
            cluster=options["executor"],
            slurm_max_num_timeout=options["max_num_timeout"],
            local_max_num_timeout=options["max_num_timeout"],
        )
        given = {key: options[key] for key in ("timeout_min", "cpus_per_task", "mem_gb")}
        given |= {f"slurm_{key}": options[key] for key in _SLURM_OPTIONS}
        given |= _for_ranks(self._device(number), options)
        executor.update_parameters(name=f"bigmodel-{number}", **given)
        # a process that submitit starts here inherits the mask: on a Ctrl-C this process asks the jobs to save
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return str(executor.submit(_SubmittedJob(self._context, number, token)).job_id)
        except (OSError, submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ConfigError(
                f"hydra/launcher=slurm: job {number} was rejected: {reason}; to resume with other options: "
                f"{resume_command(self._path, self._context.trust, 'hydra.launcher.KEY=VALUE', multirun=True)}"
            ) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _device(self, number: int) -> Mapping[str, Any]:
        """Return the `device` of a job's config; empty if it cannot be read, which the job itself will report."""
        with contextlib.suppress(ConfigError, OSError):
            config = load_snapshot(self._path / "jobs" / f"{number}.yaml", self._context.trust)
            return cast(Mapping[str, Any], config.values["device"])
        return {}

    def _exit_code_from_scheduler(self, number: int, name: str, state: str) -> int | None:
        """Derive the exit code of a job that recorded none from Slurm's state; None while its file may still arrive."""
        since = self._ended_without_code.setdefault(number, monotonic())
        if monotonic() - since < self._scheduler.file_delay_s:
            return None
        if number in self._stopping or not state.startswith((_OUT_OF_MEMORY, *_FAILED)):
            return _STOPPED  # cancelled, out of time, or its machine was lost: it can resume
        with append_to(self._path / "jobs" / f"{number}.txt") as file:
            logs = self._path / "jobs" / "slurm" / f"{name}_0_log.err"
            file.write(f"error: {state} without an error message; see {logs}\n")
        return -signal.SIGKILL if state.startswith(_OUT_OF_MEMORY) else 1


def _for_ranks(device: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, int]:
    """Return the cores and GPUs of a job: it is one task of Slurm, which starts its ranks itself, on one machine."""
    ranks = rank_count(device)
    asked = {"cpus_per_task": options["cpus_per_task"] * ranks}
    if options["gpus_per_node"] or (ranks > 1 and device.get("kind") == "cuda"):
        asked["gpus_per_node"] = max(options["gpus_per_node"], ranks)
    return asked


class _SubmittedJob(RemoteJob):
    """Callable that submitit runs. On submitit's signal before a time limit or a preemption the job saves, and is
    queued again under the same id.
    """

    def __call__(self) -> None:
        signal.signal(signal.SIGTERM, self.request_stop)
        try:
            super().__call__()
        except Exception:  # raised in submitit's handler after `checkpoint`, which has ended the job
            if self._process is None:
                raise
            self._starts().end(self.number, self.token, self._process.wait())

    def checkpoint(self) -> Any:
        """Save and end the job; return it if it is to be queued again. submitit calls this in its signal handler."""
        from submitit.helpers import DelayedSubmission

        self.stop = True
        code = self._wait(self._process) if self._process is not None else _STOPPED
        return DelayedSubmission(_SubmittedJob(self.context, self.number, self.token)) if code == _STOPPED else None


class _Scheduler(Protocol):
    """Reports the state of submitted jobs by their ids."""

    file_delay_s: float  # longest time until a file of another machine is visible here

    def update(self, names: Iterator[str], often: bool = False) -> None:
        """Fetch the states of these jobs, unless that was done a short time ago."""

    def is_active(self, name: str) -> bool:
        """Whether a job is known to wait or run."""

    def final_state(self, name: str) -> str:
        """Return the scheduler's word for a job that has ended; empty while it may still run."""

    def stop(self, names: Collection[str]) -> None:
        """Cancel jobs that wait, and send SIGTERM to those that run."""


class _Slurm:
    file_delay_s = 60.0
    _INTERVALS_S = (15.0, 2.0)  # between queries of sacct: normally, and once jobs are asked to stop

    def __init__(self) -> None:
        from submitit.slurm.slurm import SlurmJob

        self._watcher, self._updated = SlurmJob.watcher, 0.0

    def update(self, names: Iterator[str], often: bool = False) -> None:
        if monotonic() - self._updated < self._INTERVALS_S[often]:
            return
        for name in names:
            self._watcher.register_job(name)
        self._watcher.update_if_long_enough("force")
        self._updated = monotonic()

    def is_active(self, name: str) -> bool:
        return self._state(name).startswith(_ACTIVE)

    def final_state(self, name: str) -> str:
        state = self._state(name)  # UNKNOWN: sacct lists a new job only after some seconds
        return "" if state.startswith((*_ACTIVE, "UNKNOWN", "READY")) else state

    def stop(self, names: Collection[str]) -> None:
        for flags in (["--state=PENDING"], ["--state=RUNNING", "--signal=TERM"]):
            if names:
                subprocess.run(["scancel", *flags, *names], capture_output=True, check=False)
        self._updated = 0.0

    def _state(self, name: str) -> str:
        return str(self._watcher.get_state(name, mode="cache"))


class _ThisMachine:
    """submitit's local executor, where a job's id is that of the process that supervises it."""

    file_delay_s = 0.0

    def update(self, names: Iterator[str], often: bool = False) -> None:
        """Nothing to fetch: /proc is always current."""

    def is_active(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            return b"submitit" in Path(f"/proc/{name}/cmdline").read_bytes()
        return False

    def final_state(self, name: str) -> str:
        return "" if self.is_active(name) else _FAILED[0]

    def stop(self, names: Collection[str]) -> None:
        for name in names:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGTERM)
