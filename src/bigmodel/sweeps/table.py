"""A sweep on screen: a live table in a terminal, plain lines elsewhere, and the table of all jobs at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from time import monotonic

from bigmodel.config.override_text import override_key
from bigmodel.formatting import columns_of, cut, format_count, left
from bigmodel.listeners.lines import format_metric
from bigmodel.metric_spec import MetricSpec, from_summary, spec_for
from bigmodel.redaction import redact
from bigmodel.runs.comparison.measures import changes_the_measure
from bigmodel.runtime import stdout
from bigmodel.runtime.live_text import LiveText, elapsed_text
from bigmodel.runtime.signals import describe_exit_code
from bigmodel.runtime.terminal import draws_in_place, terminal_size
from bigmodel.sweeps.state.directory import SweepDirectory
from bigmodel.sweeps.state.jobs import JobProgress

_REFRESH_S = 0.5
_NARROWEST = 8  # columns that the longest cells are cut to at most
_BY_NEED = ("running", "failed", "interrupted", "queued", "pruned", "done")  # which rows to show where not all fit


class SweepDisplay:
    """Shows the jobs while they run. A closed stdout silences it, and never stops the sweep."""

    def __init__(self, sweep: SweepDirectory, jobs: dict[int, JobProgress], num_to_run: int) -> None:
        self._sweep = sweep
        self._jobs = jobs
        self._num_to_run = num_to_run
        self._seconds_left: dict[int, float] = {}
        self._first_progress: dict[int, float] = {}
        self._live: LiveText | None = None
        self._drawn = 0.0
        self._text = ""

    def __enter__(self) -> SweepDisplay:
        settings, trials = self._sweep.settings, self._sweep.trials
        total, num_ended = trials or len(self._jobs), len(self._jobs) - self._num_to_run
        ended = f" ({num_ended} {'done' if trials is None else 'ended'})" if num_ended else ""
        width = self._sweep.jobs_per_trial
        members = format_count(total, "trial" if trials is not None and width == 1 else "job")
        members += f", {width} seeds a trial" if trials is not None and width > 1 else ""
        threads = f"{format_count(settings.threads, 'thread')} each"
        print_line(f"{members}{ended}; {settings.jobs} at a time, {threads}; in {self._sweep.path}")
        if draws_in_place():
            self._live = LiveText(lambda columns: self._text)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.close()

    def started(self, number: int) -> None:
        """Show the start of a job, before its engine takes seconds to load torch."""
        self._seconds_left.pop(number, None)
        self._first_progress.pop(number, None)
        if self._live is None:
            print_line(f"job {number} starts: {_overrides(self._sweep, number)}")
        else:
            self._draw(self._live)

    def print_lines(self, lines: Sequence[str]) -> None:
        """Print lines above the live table."""
        for text in lines:
            print_line(text)

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
        self._draw(self._live)

    def _draw(self, live: LiveText) -> None:
        self._text = redact("\n".join(self._live_lines(*terminal_size())))
        live.draw()

    def _live_lines(self, columns: int, height: int) -> list[str]:
        """Return the table of as many jobs as there is room for, each on one line, and how many are in which state."""
        counts = {status: sum(job.status == status for job in self._jobs.values()) for status in _BY_NEED}
        by_need = sorted(self._jobs, key=lambda number: _BY_NEED.index(self._jobs[number].status))
        shown = sorted(by_need[: max(3, height - 4)])
        best = best_job(self._sweep, self._jobs)
        monitors = {job.monitor for job in self._sweep.jobs.values()}
        metric = f"{monitors.pop()} " if len(monitors) == 1 else ""  # named once, where it is the same of all
        rows = [("  job", "overrides", "state", metric.rstrip() or "metric", "left")]
        for number in shown:
            job, is_running = self._jobs[number], self._jobs[number].status == "running"
            state = f"{_status(job)} {job.progress:.0%}" if is_running and job.progress else _status(job)
            seconds = self._seconds_left.get(number) if is_running else None
            time_left = "" if seconds is None else elapsed_text(seconds)
            value = format_value(self._sweep, number, job).removeprefix(metric)
            cells = (_overrides(self._sweep, number), state, value, time_left)
            rows.append((f"{'*' if number == best else ' '} {number:3d}", *cells))
        status = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        hidden = len(self._jobs) - len(shown)
        notes = [status, *([f"{hidden} not shown"] if hidden else []), *(["* best so far"] if best is not None else [])]
        return [*_align(rows, columns), "; ".join(notes)]


def best_job(sweep: SweepDirectory, jobs: Mapping[int, JobProgress]) -> int | None:
    """Return the job whose monitored metric is best so far.

    None unless it is one metric, better low or high, that measures the same in all of them: not on two datasets.
    """
    values = {number: job.value for number, job in jobs.items() if job.value is not None}
    monitors = {sweep.jobs[number].monitor for number in values}
    if len(monitors) != 1:
        return None
    monitor = monitors.pop()
    spec = next(filter(None, (_spec(sweep, number) for number in values)), None)
    keys = {override_key(text) for number in values for text in sweep.distinct_overrides(number)}
    if spec is None or spec.direction == "none" or any(changes_the_measure(key, monitor, spec) for key in keys):
        return None
    return (min if spec.direction == "min" else max)(values, key=lambda number: values[number])


def print_job_table(sweep: SweepDirectory, jobs: Mapping[int, JobProgress]) -> None:
    """Print all jobs as a plain table."""
    rows = [("job", "overrides", "state", "best", "time")]
    for number, job in jobs.items():
        time = f"{job.seconds:.1f} s" if job.seconds else ""
        rows.append((str(number), _overrides(sweep, number), _status(job), format_value(sweep, number, job), time))
    for line in _align(rows):
        print_line(line)


def print_line(text: str) -> None:
    """Print a line without secrets; a closed stdout is ignored from then on."""
    stdout.print_line(redact(text))


def format_value(sweep: SweepDirectory, number: int, job: JobProgress) -> str:
    """Return a job's monitored metric with its name; empty without a value."""
    if job.value is None:
        return ""
    return f"{sweep.jobs[number].monitor} {format_metric(job.value, _spec(sweep, number))}"


def dry_run_lines(jobs: Mapping[int, list[str]]) -> Iterator[str]:
    """Yield the lines of a dry run: the number of jobs, and each job's distinct overrides."""
    yield f"{format_count(len(jobs), 'job')}; nothing was started"
    width = len(str(max(jobs, default=0)))
    for number, overrides in jobs.items():
        yield f"{number:>{width}}  {' '.join(overrides)}"


def _align(rows: Sequence[Sequence[str]], columns: int | None = None) -> list[str]:
    """Return the rows as lines of aligned columns; the longest column is cut where the lines would be too wide."""
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    if columns is not None:
        widest = widths.index(max(widths))
        widths[widest] = max(
            _NARROWEST, min(widths[widest], columns - 1 - sum(widths) + widths[widest] - 2 * len(widths))
        )
    return [
        "  ".join(left(cut(cell, width, "..."), width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _spec(sweep: SweepDirectory, number: int) -> MetricSpec | None:
    summary = sweep.summary(number)  # a running job has none yet
    return spec_for(from_summary(summary), sweep.jobs[number].monitor)


def _overrides(sweep: SweepDirectory, number: int) -> str:
    return " ".join(sweep.distinct_overrides(number))


def _status(job: JobProgress) -> str:
    return f"failed ({describe_exit_code(job.code or 0)})" if job.status == "failed" else job.status
