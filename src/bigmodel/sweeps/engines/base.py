"""Protocol between a sweep and its engine: processes of this machine, Slurm through submitit, or Ray."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from bigmodel.sweeps.engines.job_context import JobContext


class JobEnd(NamedTuple):
    """A job that has ended. `code`: exit code, negative for a signal, None to start the job once more."""

    number: int
    code: int | None


class Engine(Protocol):
    """Starts, signals and polls the jobs of one sweep."""

    @property
    def running_jobs(self) -> Set[int]:
        """Jobs that were started and that `poll` has not returned yet."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def configure(self, context: JobContext) -> None:
        """Set what every job's process is given. Call once, before the first `start`."""

    def start(self, number: int) -> None:
        """Start a job."""

    def signal(self, number: int, jobs: Iterable[int]) -> None:
        """Ask those of the jobs that run to save and end."""

    def poll(self, timeout_s: float) -> list[JobEnd]:
        """Wait up to `timeout_s` seconds, and return the jobs that have ended."""
