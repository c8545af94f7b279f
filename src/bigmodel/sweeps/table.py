"""A sweep on screen: a live table where there is a terminal, plain lines where there is none; a table at the end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

from bigmodel.listeners.lines import format_metric as metric_in_words
from bigmodel.metric_spec import from_summary, spec_for
from bigmodel.redaction import redact
from bigmodel.runtime.signals import in_words as code_in_words
from bigmodel.sweeps.state.directory import JobProgress, SweepDirectory

_REFRESH_S = 0.5
_ORDER = ("running", "failed", "interrupted", "queued", "pruned", "done")  # which rows are shown where not all fit


class SweepDisplay:
    """Shows the jobs while they run. A closed stdout silences it, and never stops the sweep."""

    def __init__(self, sweep: SweepDirectory, states: dict[int, JobProgress], to_run: int) -> None:
        self._sweep, self._states, self._to_run = sweep, states, to_run
        self._left: dict[int, float] = {}
        self._began: dict[int, float] = {}
        self._live: Any = None
        self._drawn = 0.0

    def __enter__(self) -> SweepDisplay:
        settings, trials = self._sweep.settings, self._sweep.trials
        total, ended = trials or len(self._states), len(self._states) - self._to_run
        done = f", {ended} of them {'done' if trials is None else 'ended'}" if ended else ""
        threads = f"{settings.threads} thread{'s' * (settings.threads > 1)} each"
        width = self._sweep.width
        kind = "jobs" if trials is None else "trials" if width == 1 else f"jobs, {width} seeds a trial"
        print_line(f"{total} {kind}{done}, {settings.jobs} at a time with {threads}, in {self._sweep.path}")
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
        self._left.pop(number, None)
        self._began.pop(number, None)
        if self._live is None:
            print_line(f"job {number} starts: {_overrides(self._sweep, number)}")

    def told(self, lines: Sequence[str]) -> None:
        """Say something besides the table."""
        for text in lines:
            if self._live is None:
                print_line(text)
            else:
                self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def ended(self, number: int, seconds: float, again: bool) -> None:
        if self._live is None:
            state = self._states[number]
            value = f", {state_value(self._sweep, number, state)}" if state.value is not None else ""
            word = f"failed, {code_in_words(state.code or 0)}" if state.status == "failed" else state.status
            print_line(f"job {number} {word} after {seconds:.1f} s{value}{'; it is tried once more' if again else ''}")

    def refresh(self, running: Collection[int], started: Mapping[int, float]) -> None:
        """Redraw, where there is a terminal and it is time."""
        now = monotonic()
        if self._live is None or now - self._drawn < _REFRESH_S:
            return
        self._drawn = now
        for number in running:
            state = self._states[number]
            self._sweep.refresh_progress(number, state)
            if state.progress:
                before = self._began.setdefault(number, state.progress)  # it may have been resumed half way
                gone = state.progress - before
                state.seconds = now - started[number]
                if gone:
                    self._left[number] = state.seconds / gone * (1 - state.progress)
        with contextlib.suppress(OSError):
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Any:
        from rich.table import Table

        counts = {word: sum(state.status == word for state in self._states.values()) for word in _ORDER}
        caption = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        table = Table("job", "overrides", "state", "step", "metric", "time left", caption=caption)
        room = max(3, self._live.console.height - 6)
        by_need = sorted(self._states, key=lambda number: _ORDER.index(self._states[number].status))
        for number in sorted(by_need[:room]):
            state = self._states[number]
            left = f"{self._left[number]:.0f} s" if state.status == "running" and number in self._left else ""
            cells = (_overrides(self._sweep, number), _word(state), f"{state.step or ''}")
            table.add_row(str(number), *cells, state_value(self._sweep, number, state), left)
        return table


def print_job_table(sweep: SweepDirectory) -> None:
    """The table of all jobs, without a terminal's help."""
    states = sweep.states()
    rows = [("job", "overrides", "state", "best", "time")]
    for number, state in states.items():
        time = f"{state.seconds:.1f} s" if state.seconds else ""
        value = state_value(sweep, number, state)
        rows.append((str(number), _overrides(sweep, number), _word(state), value, time))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print_line("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def print_line(text: str) -> None:
    """Print; to nowhere, if stdout is closed."""
    try:
        print(redact(text), flush=True)
    except UnicodeEncodeError:
        print(redact(text).encode("ascii", "backslashreplace").decode(), flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process


def state_value(sweep: SweepDirectory, number: int, state: JobProgress) -> str:
    """The monitored metric in words."""
    if state.value is None:
        return ""
    name = sweep.entries[number].monitor
    spec = spec_for(from_summary(sweep.summary(number)), name)  # a running job has no summary.json yet
    return f"{name} {metric_in_words(state.value, spec)}"


def dry_run_lines(sweep_jobs: Mapping[int, list[str]]) -> Iterator[str]:
    """Lines of a dry run: how many jobs, and what each has of its own."""
    yield f"{len(sweep_jobs)} jobs; nothing was started"
    width = len(str(max(sweep_jobs, default=0)))
    for number, overrides in sweep_jobs.items():
        yield f"{number:>{width}}  {' '.join(overrides)}"


def _overrides(sweep: SweepDirectory, number: int) -> str:
    return " ".join(sweep.distinct_overrides(number))


def _word(state: JobProgress) -> str:
    return f"failed ({code_in_words(state.code or 0)})" if state.status == "failed" else state.status
