"""A sweep's jobs on Slurm, through submitit. The optional extra `slurm`.

The jobs are Slurm's, not this process's: they outlive it. What each is called there is kept in the sweep's directory,
so that a second start of the sweep finds those that still wait or run, and starts none of them twice.
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
from typing import Any, Protocol

from bigmodel.errors import ConfigError, Interrupted
from bigmodel.quoting import resume_command
from bigmodel.safe_files import append_to
from bigmodel.sweeps.engines.base import JobEnd
from bigmodel.sweeps.engines.remote_job import RemoteJob, StartRecords, remote_context

_STOPPED = Interrupted.exit_code
_SLURMS_OWN = ("partition", "account", "qos", "constraint", "signal_delay_s")
_RUNS = ("PENDING", "RUNNING", "REQUEUED", "REQUEUE_HOLD", "COMPLETING", "CONFIGURING", "SUSPENDED", "RESIZING")
_KILLED_FOR_MEMORY = "OUT_OF_ME"  # sacct may cut the word short
_FAILED = ("FAILED", "COMPLETED")  # and yet without a word of how it ended


class SlurmEngine:
    """The jobs of the sweep at `path`; `running` are those that are in Slurm's hands, waiting or not."""

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # it would print to our stdout
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
        self._path, self._options, self._starts = path, options, StartRecords(path)
        self._facts: dict[str, Any] = {}
        self._submitted: dict[int, tuple[str, str]] = {}  # token and Slurm's name of those that have not ended
        self._ended_without_code: dict[
            int, float
        ] = {}  # since when they have been over without having told their exit code
        self._stopping = set[int]()
        self._scheduler: _Scheduler = _ThisMachine() if options["executor"] == "local" else _Slurm()

    def __enter__(self) -> SlurmEngine:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever is still with Slurm stays there."""

    def configure(self, facts: Mapping[str, Any]) -> None:
        self._facts = remote_context(facts)
        if self._options["executor"] == "slurm":
            self._facts["gpus"] = []  # Slurm gives them out
        for file in (self._path / "jobs").glob("*.start.json"):
            number = int(file.name.partition(".")[0])
            last = self._starts.last(number)
            if "id" in last and self._starts.code(number, last["token"]) is None:
                self._submitted[number] = (last["token"], last["id"])
        self._scheduler.look(name for _, name in self._submitted.values())
        self._submitted = {
            n: (token, name) for n, (token, name) in self._submitted.items() if self._scheduler.runs(name)
        }

    def start(self, number: int) -> None:
        """Hand a job to Slurm, unless an earlier start of the sweep has done so and it is still there.

        Raises:
            ConfigError: Slurm does not take it.
        """
        self.running_jobs.add(number)
        self._stopping.discard(number)
        if number in self._submitted:
            return
        token = secrets.token_hex(8)
        self._starts.begin(number, token)  # whatever has an older token starts no more
        name = self._submit(number, token)
        self._starts.begin(number, token, id=name)
        self._submitted[number] = (token, name)

    def signal(self, number: int, jobs: Iterable[int]) -> None:
        """Have the jobs save and end; those that wait in Slurm's queue leave it."""
        asked = self.running_jobs.intersection(jobs)
        self._stopping |= asked
        self._scheduler.stop([self._submitted[job][1] for job in asked])

    def poll(self, seconds: float) -> list[JobEnd]:
        time.sleep(seconds)
        self._scheduler.look((self._submitted[number][1] for number in self.running_jobs), often=bool(self._stopping))
        ended: list[JobEnd] = []
        for number in sorted(self.running_jobs):
            token, name = self._submitted[number]
            over = self._scheduler.final_state(name)
            code = self._starts.code(number, token)
            if code == _STOPPED and not over and number not in self._stopping:
                continue  # Slurm, who stopped it, may queue it again
            if code is None and over:
                code = self._exit_code_from_scheduler(number, name, over)
            if code is not None:
                self._ended_without_code.pop(number, None)
                del self._submitted[number]
                ended.append(JobEnd(number, code))
        self.running_jobs -= {end.number for end in ended}
        return ended

    def _submit(self, number: int, token: str) -> str:
        import submitit

        options = self._options
        executor = submitit.AutoExecutor(
            self._path.resolve() / "jobs" / "slurm",
            cluster=options["executor"],
            slurm_max_num_timeout=options["max_num_timeout"],
            local_max_num_timeout=options["max_num_timeout"],
        )
        given = {key: options[key] for key in ("timeout_min", "cpus_per_task", "mem_gb")}
        given |= {f"slurm_{key}": options[key] for key in _SLURMS_OWN}
        if options["gpus_per_node"]:
            given["gpus_per_node"] = options["gpus_per_node"]
        executor.update_parameters(name=f"bigmodel-{number}", **given)
        # what it starts on this machine inherits the mask: a Ctrl-C is this process's affair, which has jobs save
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return str(executor.submit(_Submitted(self._facts, number, token)).job_id)
        except (OSError, submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            told = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ConfigError(
                f"hydra/launcher=slurm: job {number} was not taken: {told}; to go on with other options: "
                f"{resume_command(self._path, self._facts['trust'], 'hydra.launcher.KEY=VALUE', multirun=True)}"
            ) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _exit_code_from_scheduler(self, number: int, name: str, word: str) -> int | None:
        """The exit code of a job that could not tell it, by Slurm's word for it; None while its file may still come."""
        since = self._ended_without_code.setdefault(number, monotonic())
        if monotonic() - since < self._scheduler.file_delay_s:
            return None
        if number in self._stopping or not word.startswith((_KILLED_FOR_MEMORY, *_FAILED)):
            return _STOPPED  # cancelled, out of time, or its machine is gone: it can go on from its checkpoint
        with append_to(self._path / "jobs" / f"{number}.txt") as file:
            logs = self._path / "jobs" / "slurm" / f"{name}_0_log.err"
            file.write(f"error: {word} without a word of its own; see {logs}\n")
        return -signal.SIGKILL if word.startswith(_KILLED_FOR_MEMORY) else 1


class _Submitted(RemoteJob):
    """What submitit calls in the job. On its signal before a time limit or a preemption the job saves, and is queued
    again under the same name.
    """

    def __call__(self) -> None:
        signal.signal(signal.SIGTERM, self.request_stop)
        try:
            super().__call__()
        except Exception:  # out of submitit's handler: it is not queued again, and has ended in `checkpoint`
            if self._process is None:
                raise
            self._starts().end(self.number, self.token, self._process.wait())

    def checkpoint(self) -> Any:
        """Called within submitit's signal handler, while `__call__` waits below it."""
        from submitit.helpers import DelayedSubmission

        self.stop = True
        code = self._watched(self._process) if self._process is not None else _STOPPED
        return DelayedSubmission(_Submitted(self.facts, self.number, self.token)) if code == _STOPPED else None


class _Scheduler(Protocol):
    """Which jobs run, in the words of whoever runs them."""

    file_delay_s: float  # that a file takes to be seen from this machine

    def look(self, names: Iterator[str], often: bool = False) -> None: ...

    def runs(self, name: str) -> bool:
        """Whether it is known to wait or run."""

    def final_state(self, name: str) -> str:
        """The word for a job that has ended; empty while it may still run."""

    def stop(self, names: Collection[str]) -> None: ...


class _Slurm:
    file_delay_s = 60.0
    _ASK_S = (15.0, 2.0)  # as a rule, and once the jobs are to stop

    def __init__(self) -> None:
        from submitit.slurm.slurm import SlurmJob

        self._watcher, self._asked = SlurmJob.watcher, 0.0

    def look(self, names: Iterator[str], often: bool = False) -> None:
        if monotonic() - self._asked < self._ASK_S[often]:
            return
        for name in names:
            self._watcher.register_job(name)
        self._watcher.update_if_long_enough("force")
        self._asked = monotonic()

    def runs(self, name: str) -> bool:
        return self._word(name).startswith(_RUNS)

    def final_state(self, name: str) -> str:
        word = self._word(name)
        return "" if word.startswith((*_RUNS, "UNKNOWN", "READY")) else word  # sacct hears of a new one after a while

    def stop(self, names: Collection[str]) -> None:
        for words in (["--state=PENDING"], ["--state=RUNNING", "--signal=TERM"]):
            if names:
                subprocess.run(["scancel", *words, *names], capture_output=True, check=False)
        self._asked = 0.0

    def _word(self, name: str) -> str:
        return str(self._watcher.get_state(name, mode="cache"))


class _ThisMachine:
    """submitit's local executor, where a job's name is the number of the process that looks after it."""

    file_delay_s = 0.0

    def look(self, names: Iterator[str], often: bool = False) -> None:
        pass

    def runs(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            return b"submitit" in Path(f"/proc/{name}/cmdline").read_bytes()
        return False

    def final_state(self, name: str) -> str:
        return "" if self.runs(name) else _FAILED[0]

    def stop(self, names: Collection[str]) -> None:
        for name in names:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGTERM)
