"""What a sweep asks of an engine: processes of this machine, Slurm through submitit, Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class JobEnd(NamedTuple):
    """A job that has ended. `code` is its exit code, negative for a signal; None if it is to be started again, for no
    fault of its own.
    """

    number: int
    code: int | None


class Engine(Protocol):
    """The jobs of a sweep as `run` sees them."""

    @property
    def running_jobs(self) -> Set[int]:
        """Those that were started and have not been told as ended."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def configure(self, facts: Mapping[str, Any]) -> None:
        """What every job is told; before the first one starts."""

    def start(self, number: int) -> None:
        """Start a job."""

    def signal(self, number: int, jobs: Iterable[int]) -> None:
        """Have those of the jobs that run save and end."""

    def poll(self, seconds: float) -> list[JobEnd]:
        """Wait at most so long for jobs to end."""
