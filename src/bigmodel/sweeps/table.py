"""A sweep on screen: a live table in a terminal, plain lines elsewhere, and the table of all jobs at the end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

from bigmodel.listeners.lines import format_metric
from bigmodel.metric_spec import from_summary, spec_for
from bigmodel.redaction import redact
from bigmodel.runtime import stdout
from bigmodel.runtime.signals import describe_exit_code
from bigmodel.sweeps.state.directory import SweepDirectory
from bigmodel.sweeps.state.jobs import JobProgress

_REFRESH_S = 0.5
_BY_NEED = ("running", "failed", "interrupted", "queued", "pruned", "done")  # which rows to show where not all fit


class SweepDisplay:
    """Shows the jobs while they run. A closed stdout silences it, and never stops the sweep."""

    def __init__(self, sweep: SweepDirectory, jobs: dict[int, JobProgress], num_to_run: int) -> None:
        self._sweep, self._jobs, self._num_to_run = sweep, jobs, num_to_run
        self._seconds_left: dict[int, float] = {}
        self._first_progress: dict[int, float] = {}
        self._live: Any = None
        self._drawn = 0.0

    def __enter__(self) -> SweepDisplay:
        settings, trials = self._sweep.settings, self._sweep.trials
        total, num_ended = trials or len(self._jobs), len(self._jobs) - self._num_to_run
        ended = f" ({num_ended} {'done' if trials is None else 'ended'})" if num_ended else ""
        width = self._sweep.jobs_per_trial
        members = "jobs" if trials is None else "trials" if width == 1 else f"jobs, {width} seeds a trial"
        threads = f"{settings.threads} thread{'s' * (settings.threads > 1)} each"
        print_line(f"{total} {members}{ended}; {settings.jobs} at a time, {threads}; in {self._sweep.path}")
        with contextlib.suppress(OSError, ValueError):
            if sys.stdout.isatty():
                from rich.live import Live

                self._live = Live(auto_refresh=False, transient=True)
                self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()

    def started(self, number: int) -> None:
        """Show the start of a job."""
        self._seconds_left.pop(number, None)
        self._first_progress.pop(number, None)
        if self._live is None:
            print_line(f"job {number} starts: {_overrides(self._sweep, number)}")

    def print_lines(self, lines: Sequence[str]) -> None:
        """Print lines above the live table."""
        for text in lines:
            if self._live is None:
                print_line(text)
            else:
                self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def ended(self, number: int, seconds: float, retry: bool) -> None:
        """Show the end of a job, which is started again if `retry`."""
        if self._live is None:
            job = self._jobs[number]
            value = f", {format_value(self._sweep, number, job)}" if job.value is not None else ""
            print_line(f"job {number} {_status(job)} after {seconds:.1f} s{value}{'; retrying once' if retry else ''}")

    def refresh(self, running: Collection[int], start_times: Mapping[int, float]) -> None:
        """Redraw the live table every half second."""
        now = monotonic()
        if self._live is None or now - self._drawn < _REFRESH_S:
            return
        self._drawn = now
        for number in running:
            job = self._jobs[number]
            self._sweep.refresh_progress(number, job)
            if job.progress:
                gained = job.progress - self._first_progress.setdefault(number, job.progress)  # > 0 when resumed
                job.seconds = now - start_times[number]
                if gained:
                    self._seconds_left[number] = job.seconds / gained * (1 - job.progress)
        with contextlib.suppress(OSError):
            self._live.update(self._live_table(), refresh=True)

    def _live_table(self) -> Any:
        from rich.table import Table

        counts = {status: sum(job.status == status for job in self._jobs.values()) for status in _BY_NEED}
        caption = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        table = Table("job", "overrides", "state", "step", "metric", "time left", caption=caption)
        num_rows = max(3, self._live.console.height - 6)
        by_need = sorted(self._jobs, key=lambda number: _BY_NEED.index(self._jobs[number].status))
        for number in sorted(by_need[:num_rows]):
            job = self._jobs[number]
            has_estimate = job.status == "running" and number in self._seconds_left
            time_left = f"{self._seconds_left[number]:.0f} s" if has_estimate else ""
            cells = (_overrides(self._sweep, number), _status(job), f"{job.step or ''}")
            table.add_row(str(number), *cells, format_value(self._sweep, number, job), time_left)
        return table


def print_job_table(sweep: SweepDirectory, jobs: Mapping[int, JobProgress]) -> None:
    """Print all jobs as a plain table."""
    rows = [("job", "overrides", "state", "best", "time")]
    for number, job in jobs.items():
        time = f"{job.seconds:.1f} s" if job.seconds else ""
        rows.append((str(number), _overrides(sweep, number), _status(job), format_value(sweep, number, job), time))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print_line("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def print_line(text: str) -> None:
    """Print a line without secrets; a closed stdout is ignored from then on."""
    stdout.print_line(redact(text))


def format_value(sweep: SweepDirectory, number: int, job: JobProgress) -> str:
    """Return a job's monitored metric with its name; empty without a value."""
    if job.value is None:
        return ""
    name = sweep.jobs[number].monitor
    spec = spec_for(from_summary(sweep.summary(number)), name)  # a running job has no summary.json yet
    return f"{name} {format_metric(job.value, spec)}"


def dry_run_lines(jobs: Mapping[int, list[str]]) -> Iterator[str]:
    """Yield the lines of a dry run: the number of jobs, and each job's distinct overrides."""
    yield f"{len(jobs)} jobs; nothing was started"
    width = len(str(max(jobs, default=0)))
    for number, overrides in jobs.items():
        yield f"{number:>{width}}  {' '.join(overrides)}"


def _overrides(sweep: SweepDirectory, number: int) -> str:
    return " ".join(sweep.distinct_overrides(number))


def _status(job: JobProgress) -> str:
    return f"failed ({describe_exit_code(job.code or 0)})" if job.status == "failed" else job.status
