"""Listener that writes `report.html` when a run has ended; needs the optional dependency `plots`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from bigmodel.events import Evaluated, Finished
from bigmodel.listeners.lines import format_end_line
from bigmodel.runs.records import is_sweep
from bigmodel.runs.report.files import try_write
from bigmodel.runtime.stdout import print_line

__all__ = ["Report"]

_SHARE = 0.05  # of a run's time that its predictions may take again
_LEAST_S = 0.3
_MOST_S = 10.0
_MAX_SAMPLES = 5000


class Report:
    """Writes the page of a run that has finished, from the weights and data that its `TrainingRun` still holds.

    Without matplotlib nothing happens. The jobs of a sweep write no page: the sweep writes one. A page that cannot be
    written costs a warning, never the run.
    """

    def __init__(self, directory: Path, training_run: Any) -> None:
        self._directory = directory
        self._run = training_run
        self._last: Evaluated | None = None

    def __call__(self, event: object) -> None:
        if isinstance(event, Evaluated):
            self._last = event
        elif isinstance(event, Finished) and not is_sweep(self._directory.parent):
            seconds = float(event.summary["seconds"])
            said = try_write(self._directory, lambda: self._page(seconds), partial(format_end_line, "report"))
            if said:
                print_line(said)

    def close(self) -> None:
        """Nothing is held open."""

    def _page(self, seconds: float) -> str:
        from bigmodel.runs.report.build import finished_run_page

        budget_s = min(_MOST_S, max(_LEAST_S, _SHARE * seconds))
        samples, step = float(_MAX_SAMPLES), self._run.state.step
        if self._last is not None:  # its step is that of the weights which the model holds
            total, step = self._run.loader.splits.get(self._last.split, 0), self._last.step
            samples = min(samples, max(1.0, total * budget_s / max(1e-6, self._last.seconds)))
        return finished_run_page(self._directory, self._run, step, samples, budget_s)
