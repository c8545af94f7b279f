"""Build the page of what is at one path or several: a run, runs to compare, or a sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bigmodel.errors import BigmodelError, Interrupted
from bigmodel.formatting import truncate
from bigmodel.runs.records import is_sweep, read_run_or_sweep
from bigmodel.runs.report.comparison import comparison_page
from bigmodel.runs.report.gather import gather
from bigmodel.runs.report.page import counts, run_page
from bigmodel.runs.report.svg import SvgWriter
from bigmodel.runs.report.sweep import sweep_page

if TYPE_CHECKING:
    from bigmodel.training.build import TrainingRun


def build_page(
    paths: Sequence[Path],
    *,
    device: str = "auto",
    data_dir: str | None = None,
    trust: Sequence[str] = (),
    predicts: bool = True,
    warnings: list[str] | None = None,
) -> str:
    """Return the page as HTML. With `predicts`, a single run's checkpoint predicts samples of its data.

    `warnings` gets a line for each thing that could not be read or shown.

    Raises:
        ConfigError: a path is neither a run nor a sweep.
    """
    warnings = [] if warnings is None else warnings
    records = [record for path in paths for record in read_run_or_sweep(path, [])]
    if len(records) == 1 and not is_sweep(paths[0]):

        def predict(writer: SvgWriter, has_counts: bool) -> str:
            from bigmodel.runs.report.sources import from_checkpoint  # torch, which no other page needs

            return from_checkpoint(records[0].path, device, data_dir, trust, writer, has_counts)

        return _run_page(records[0].path, warnings, predict if predicts else None)
    runs = [gather(record.path, warnings) for record in records]
    return sweep_page(paths[0], runs, warnings) if len(paths) == 1 else comparison_page(runs, warnings)


def finished_run_page(directory: Path, built: TrainingRun, step: int, max_samples: float, budget_s: float) -> str:
    """Return the page of a run that has just ended in this process; its predictions take about `budget_s` seconds.

    The model holds the weights of `step`.
    """

    def predict(writer: SvgWriter, has_counts: bool) -> str:
        from bigmodel.runs.report.sources import from_built

        return from_built(directory, built, step, writer, has_counts, max_samples, budget_s)

    return _run_page(directory, [], predict, ended=True)


def _run_page(
    path: Path, warnings: list[str], predict: Callable[[SvgWriter, bool], str] | None, ended: bool = False
) -> str:
    run = gather(path, warnings, ended)
    writer = SvgWriter()
    findings = ""
    try:
        findings = predict(writer, counts(run) is not None) if predict else ""
    except Interrupted:
        raise
    except BigmodelError as error:
        missing = truncate(f"no predictions: {error.lines[0]}", 400)
        warnings.append(missing)
    return run_page(run, warnings, writer, findings)
