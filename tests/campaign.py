"""Counted trials of a fault: a few in `make test`, a campaign in `make test-faults`, and the table of what came out.

    def test_random_kills(campaign):
        for trial in campaign("kill -9 at a random moment, resume", key="KILLS", quick=2, full=300):
            with trial:
                ...  # uses trial.number, trial.random; an assertion that fails is counted, and the next trial runs

`BIGMODEL_FAULTS=full` takes the full counts, `BIGMODEL_FAULTS_KILLS=1000` another count for one key, and
`BIGMODEL_FAULTS_SEED=7` repeats the draws of an earlier campaign; a failure names its seed and number.
"""

from __future__ import annotations

import os
import random
import secrets
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

SEED = int(os.environ.setdefault("BIGMODEL_FAULTS_SEED", str(secrets.randbits(32))))  # the workers of xdist have it too
_SHOWN = 3


@dataclass
class Row:
    """One line of the table."""

    fault: str
    trials: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """One injection. Left with an exception it counts as failed, and the campaign goes on."""

    number: int
    random: random.Random
    _row: Row

    def __enter__(self) -> Trial:
        self._row.trials += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None or not isinstance(error, (Exception, pytest.fail.Exception)):
            return False
        if isinstance(error, pytest.skip.Exception):
            self._row.trials -= 1
            return False
        text = "".join(traceback.format_exception(error, limit=-3))
        self._row.failures.append(f"trial {self.number} (BIGMODEL_FAULTS_SEED={SEED}):\n{text}")
        return True


_rows: list[Row] = []


def count(key: str, quick: int, full: int) -> int:
    """How many trials are asked for."""
    fallback = full if os.environ.get("BIGMODEL_FAULTS") == "full" else quick
    return int(os.environ.get(f"BIGMODEL_FAULTS_{key}", fallback))


def chosen(points: Sequence[Any], trial: Trial, total: int) -> Any:
    """One of the trial's share of all points; of as many trials as points, each takes its own."""
    low, high = (len(points) * number // total for number in (trial.number, trial.number + 1))
    return points[trial.random.randrange(low, max(low + 1, high))]


@pytest.fixture
def campaign() -> Iterator[Callable[..., Iterator[Trial]]]:
    """`campaign(fault, key=..., quick=..., full=...)`: trials to run; the test fails at its end if any of them did."""
    own: list[Row] = []

    def trials(fault: str, *, key: str, quick: int, full: int) -> Iterator[Trial]:
        row = Row(fault)
        own.append(row)
        _rows.append(row)
        for number in range(count(key, quick, full)):
            yield Trial(number, random.Random(f"{SEED}/{key}/{number}"), row)
        if row.failures:
            shown = "\n".join(row.failures[:_SHOWN])
            pytest.fail(f"{fault}: {len(row.failures)} of {row.trials} trials failed\n{shown}", pytrace=False)

    yield trials
    for row in own:
        assert row.trials, f"{row.fault}: no trial was run"


def table() -> str:
    """The rows so far as Markdown; no failure in N trials bounds the failure rate below 3/N at 95 %."""
    lines = ["| fault | trials | failures | failure rate below (95 %) |", "|---|---:|---:|---:|"]
    merged: dict[str, Row] = {}
    for row in _rows:
        into = merged.setdefault(row.fault, Row(row.fault))
        into.trials += row.trials
        into.failures += row.failures
    for row in merged.values():
        bound = f"{min(1, 3 / row.trials):.2%}" if row.trials and not row.failures else "-"
        lines.append(f"| {row.fault} | {row.trials} | {len(row.failures)} | {bound} |")
    return "\n".join(lines)


def circumstances() -> str:
    """One line: when, which code, on what, and which draws."""
    import platform
    import subprocess
    from datetime import date

    import torch

    ask = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    commit = subprocess.run(ask, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip() or "unknown"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{date.today()}, commit {commit}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, BIGMODEL_FAULTS_SEED={SEED}"
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give the rows of a worker of xdist to the process that shows the table."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["campaign"] = [asdict(row) for row in _rows]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take the rows of a worker that has ended."""
    _rows.extend(Row(**row) for row in getattr(node, "workeroutput", {}).get("campaign", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the table where a campaign was asked for, and write it to BIGMODEL_FAULTS_TABLE."""
    if not _rows or os.environ.get("BIGMODEL_FAULTS") != "full":
        return
    text = f"{circumstances()}\n\n{table()}\n"
    terminalreporter.write_line(f"\n{text}")
    if target := os.environ.get("BIGMODEL_FAULTS_TABLE"):
        Path(target).write_text(text, encoding="utf-8")
