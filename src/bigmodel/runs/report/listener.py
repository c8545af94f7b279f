"""Listener that writes `report.html` when a run has ended; needs the optional dependency `plots`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigmodel.events import Evaluated, Finished
from bigmodel.runs.records import is_sweep
from bigmodel.runs.report.files import try_write
from bigmodel.runtime.stdout import print_line

__all__ = ["Report"]

_SHARE = 0.05  # of a run's time that its predictions may take again
_LEAST_S = 0.3
_MOST_S = 10.0
_MAX_SAMPLES = 5000


class Report:
    """Writes the page of a run that has finished, from the weights and data that `run` (a `TrainingRun`) still holds.

    Without matplotlib nothing happens. The jobs of a sweep write no page: the sweep writes one. A page that cannot be
    written costs a warning, never the run.
    """

    def __init__(self, directory: Path, run: Any) -> None:
        self._directory, self._run = directory, run
        self._tested_s = 0.0  # seconds that one evaluation of all held-out samples takes

    def __call__(self, event: object) -> None:
        if isinstance(event, Evaluated):
            self._tested_s = event.seconds
        elif isinstance(event, Finished) and not is_sweep(self._directory.parent):
            said = try_write(self._directory, lambda: self._page(float(event.summary["seconds"])))
            if said:
                print_line(said)

    def close(self) -> None:
        """Nothing is held open."""

    def _page(self, seconds: float) -> str:
        from bigmodel.runs.report.build import finished_run_page

        budget_s = min(_MOST_S, max(_LEAST_S, _SHARE * seconds))
        total = max(self._run.loader.splits.get(split, 0) for split in ("val", "test"))
        affordable = total * budget_s / self._tested_s if self._tested_s else _MAX_SAMPLES
        return finished_run_page(self._directory, self._run, max(1.0, min(_MAX_SAMPLES, affordable)), budget_s)
