"""One start of a run in its directory: lock it, restore what it has reached, and open all that writes there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigmodel import __version__
from bigmodel.commands.ranks import lock_run, tell_followers
from bigmodel.config.instantiate import instantiate
from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate
from bigmodel.interfaces import Listener
from bigmodel.listeners.log_file import LogFile
from bigmodel.listeners.metrics_file import MetricsFile
from bigmodel.listeners.totals import RunTotals
from bigmodel.runs import checkpoint
from bigmodel.runs.checkpoint_parts import PartialSaves
from bigmodel.runs.directory import write_description
from bigmodel.runs.environment import collect_environment, describe_changes
from bigmodel.runs.metrics_repair import read_elapsed_seconds, truncate_metrics
from bigmodel.training.build import TrainingRun
from bigmodel.training.saver import AsyncCheckpointer
from bigmodel.training.tuning.auto_values import ResolvedConfig


@dataclass
class Session:
    """A run between the opening and the closing of its directory.

    `listeners` hear each event that is emitted; `log` and `totals` are two of them. `seconds_before` is the time of
    earlier starts. `warnings` have not been emitted.
    """

    directory: Path
    built: TrainingRun
    checkpoints: AsyncCheckpointer
    log: LogFile
    totals: RunTotals
    listeners: list[Listener]
    seconds_before: float
    warnings: Sequence[str]

    def emit(self, event: Any) -> None:
        """Pass an event to every listener."""
        for listener in self.listeners:
            listener(event)


@contextlib.contextmanager
def open_session(
    directory: Path, built: TrainingRun, auto: ResolvedConfig, said: Sequence[str], resume: bool
) -> Iterator[Session]:
    """Open a run's directory and, with `resume`, restore its newest checkpoint; close it at the end.

    The log begins with the lines of `auto` and those already `said` on the terminal.

    Raises:
        StorageError: another process is writing the run, or no checkpoint verifies.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(lock_run(directory, built.device.world.place).release)
        totals = RunTotals()
        about = {"config": built.config.redacted_dict(), **built.dataset.processor_spec()}
        parts = PartialSaves(built.device.world) if built.device.world.is_divided else None
        checkpoints = AsyncCheckpointer(directory / "checkpoints", about, built.settings.keep, totals.state, parts)
        warnings = [*built.warnings]
        if resume:
            warnings += checkpoints.restore(built.state)
            warnings += _describe_resumed(directory, built, checkpoints, totals)
        else:
            write_description(directory, built.config.to_yaml(), _environment(built))
        tell_followers(built, directory, restored=bool(checkpoints.restored))
        seconds_before, damage = _elapsed_before(directory, totals)
        log = LogFile(directory)
        listeners: list[Listener] = [log, MetricsFile(directory), totals]
        stack.callback(_close, listeners)
        auto.write(directory)
        for text in (*auto.lines, *said):
            log.write(text)
        session = Session(directory, built, checkpoints, log, totals, listeners, seconds_before, [*warnings, *damage])
        _add_chosen_listeners(session)
        yield session


def _describe_resumed(
    directory: Path, built: TrainingRun, checkpoints: AsyncCheckpointer, totals: RunTotals
) -> list[str]:
    """Read back the records up to the restored step and write the config anew; return warnings of what differs."""
    warnings = describe_changes(directory, _environment(built))
    records, damaged = truncate_metrics(directory / "metrics.jsonl", built.state.step)
    if damaged:
        lines = f"line{'s' * (len(damaged) > 1)} {', '.join(map(str, damaged))}"
        warnings.append(truncate(f"metrics.jsonl: {lines} damaged and left out; all others are kept", 300))
    warnings += totals.restore(records, checkpoints.restored.get("metrics"))
    write_description(directory, built.config.to_yaml())
    return warnings


def _environment(built: TrainingRun) -> dict[str, Any]:
    versions = {"bigmodel-train": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
    return collect_environment(versions, built.device.name, built.dataset.fingerprint)


def _elapsed_before(directory: Path, totals: RunTotals) -> tuple[float, list[str]]:
    """Return the seconds of earlier starts, from the summary or, for a killed run, its records; and a warning if the
    summary is damaged.
    """
    try:
        return max(read_elapsed_seconds(directory), totals.seconds), []
    except ValueError as error:
        return totals.seconds, [str(error)]


def _add_chosen_listeners(session: Session) -> None:
    """Build the listeners that the config names, and the profiler where `profile` is set."""
    built = session.built
    for name, node in built.settings.listeners.items():
        given = {"directory": session.directory, "training_run": built}
        session.listeners.append(instantiate(f"listeners.{name}", node, built.config.trust, **given))
    if built.settings.profile:
        from bigmodel.training.tuning.profile import Profiler  # only a profile needs it

        session.listeners.append(Profiler(built, session.checkpoints, session.directory))


def _close(listeners: Sequence[Listener]) -> None:
    for listener in reversed(listeners):
        with contextlib.suppress(OSError):
            listener.close()


@contextlib.contextmanager
def remove_if_unsaved(directory: Path) -> Iterator[None]:
    """Remove the directory of a run that a ConfigError ends before anything was saved."""
    try:
        yield
    except ConfigError:
        if not checkpoint.list_checkpoints(directory / "checkpoints"):
            shutil.rmtree(directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # the day's directory, if nothing else is in it
                directory.parent.rmdir()
                directory.parent.parent.rmdir()
        raise
