"""Build the page of what is at one path or several: a run, runs to compare, or a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bigmodel.errors import BigmodelError
from bigmodel.formatting import truncate
from bigmodel.runs.records import read_run_or_sweep
from bigmodel.runs.report.gather import RunData, gather
from bigmodel.runs.report.page import counts, run_page
from bigmodel.runs.report.sources import from_checkpoint
from bigmodel.runs.report.svg import SvgWriter


def build_page(
    paths: Sequence[Path], *, device: str, data_dir: str | None, trust: Sequence[str], predicts: bool
) -> str:
    """Return the page as HTML. With `predicts`, a single run's checkpoint predicts samples of its data.

    Raises:
        ConfigError: a path is neither a run nor a sweep.
    """
    warnings: list[str] = []
    records = [record for path in paths for record in read_run_or_sweep(path, [])]
    runs = [gather(record.path, warnings) for record in records]
    return _run_page(runs[0], warnings, device, data_dir, trust, predicts)


def _run_page(
    run: RunData, warnings: Sequence[str], device: str, data_dir: str | None, trust: Sequence[str], predicts: bool
) -> str:
    writer, findings, missing = SvgWriter(), "", ""
    try:
        if predicts:
            findings = from_checkpoint(run.record.path, device, data_dir, trust, writer, counts(run) is not None)
    except BigmodelError as error:
        missing = truncate(f"No predictions: {error.lines[0]}", 400)
    return run_page(run, warnings, writer, findings, missing)
