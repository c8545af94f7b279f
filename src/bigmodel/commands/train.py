"""`bigmodel-train`: from a checked config to a trained run directory."""

from __future__ import annotations

import contextlib
import shutil
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from bigmodel import __version__, checkpoint, run_directory
from bigmodel.assembly import Parts, assemble
from bigmodel.config import Config
from bigmodel.durable import write_json
from bigmodel.errors import ConfigError, Interrupted, StorageError
from bigmodel.evaluation import evaluate
from bigmodel.events import Evaluated, Finished, Started, Warned
from bigmodel.failures import failures_in_words, out_of_memory_in_words
from bigmodel.finders import find
from bigmodel.guard import say
from bigmodel.interfaces import Listener
from bigmodel.listeners.log_file import LogFile
from bigmodel.listeners.metrics_file import MetricsFile
from bigmodel.listeners.totals import Totals
from bigmodel.loop import train
from bigmodel.offline import offline
from bigmodel.preview import preview
from bigmodel.quoting import resume_command
from bigmodel.resume import hold_config, jumps
from bigmodel.saves import Saves
from bigmodel.signals import Stop
from bigmodel.targets import build
from bigmodel.tasks.metric_spec import to_json
from bigmodel.words import clip

Emit = Callable[[Any], None]
_ONCE_MORE = "; where it is the data that is gone, add dataset.download=true"


def run(
    config: Config,
    stop: Stop,
    directory: Path | None = None,
    resume: bool = False,
    own: bool | None = None,
) -> Path | None:
    """Train, in a new run directory or, with `resume`, in that of an earlier start. Returns the directory, or None
    for a dry run. Nothing that is built may reach the network on a resume, nor where the config is not one's `own`.

    Raises:
        BigmodelError: what ended the run, with its exit code; all that was reached is saved.
    """
    saved = resume and directory is not None and bool(checkpoint.steps(directory / "checkpoints"))
    state = checkpoint.newest_state(directory / "checkpoints") if saved and directory is not None else None
    notes = hold_config(directory, config, state) if resume and directory is not None else []
    from_elsewhere = resume if own is None else not own
    with (
        out_of_memory_in_words("before the first step: the model or the data is too large"),
        offline(_ONCE_MORE) if from_elsewhere else contextlib.nullcontext(),
    ):
        found = find(config)
        parts = assemble(found.config, fresh=not saved)  # one that ended before its first save begins anew
    settings = parts.settings
    parts.warnings = [*parts.warnings, *notes]
    if state is not None:
        parts.warnings = [*parts.warnings, *jumps(parts.job, state, settings.patience)]
    if settings.dry_run:
        print(preview(parts))
        return None
    said = [*parts.notes, *parts.initial]
    if parts.device.departs:
        said.append(f"device: {parts.device.choice}")
    for text in said:
        say(text)
    stop.defer()  # from here on a signal finds something to save
    if directory is None:
        directory = run_directory.make(Path(settings.output_dir))
    elif not resume:
        directory = run_directory.make_exactly(directory)
    with contextlib.ExitStack() as stack:
        if not resume:
            stack.push(_discarding(directory))
        stack.enter_context(failures_in_words(directory, parts.job, parts.config.grants))
        lock = run_directory.Lock(directory)
        stack.callback(lock.release)
        saves, totals = _saves(directory, parts), Totals()
        saves.metrics = totals.state
        warnings = [*parts.warnings, *(saves.restore(parts.job) if resume else [])]
        warnings += _describe(directory, parts, saves, totals, resume)
        before, damage = _worked(directory, totals)
        warnings += damage
        log = LogFile(directory)
        listeners: list[Listener] = [log, MetricsFile(directory), totals]
        found.write(directory)
        for text in (*found.lines, *said):
            log.write(text)
        stack.callback(_close, listeners)
        for name, node in settings.listeners.items():
            listeners.append(build(f"listeners.{name}", node, config.trust, directory=directory))

        if settings.profile:
            from bigmodel.profile import Profile  # only a profile needs it

            listeners.append(Profile(parts, saves, directory))

        def emit(event: Any) -> None:
            for listener in listeners:
                listener(event)

        for text in warnings:
            emit(Warned(text))
        summary = _trained(directory, parts, saves, emit, stop, log, totals, before)
        if summary["state"] == "interrupted":
            raise Interrupted(
                f"stopped by {stop.name} at step {parts.job.step} of {parts.job.steps}, saved; "
                f"go on with: {resume_command(directory, parts.config.grants)}"
            )
        emit(Finished(summary | {"grants": parts.config.grants}))
    return directory


def _trained(
    directory: Path, parts: Parts, saves: Saves, emit: Emit, stop: Stop, log: LogFile, totals: Totals, before: float
) -> dict[str, Any]:
    """Train, test, and write `summary.json`, however it ends. `before` is seconds of earlier starts."""
    job = parts.job
    began = monotonic()
    summary: dict[str, Any] = {"state": "running", "monitor": parts.settings.monitor}
    summary["directory"] = str(directory.resolve())  # the same wherever a run is resumed from
    summary |= {"metrics": to_json(job.specs), "splits": dict(parts.data.splits)}
    try:
        with failures_in_words(directory, job, parts.config.grants):
            emit(Started(job.step, job.steps, parts.data.steps_per_epoch, str(directory), parts.device.name))
            summary["state"] = train(job, parts.data, parts.plan, parts.device, saves, emit, stop)
            if job.steps == 0:  # epochs=0: weights from elsewhere are to be tested and kept
                saves.save(job)
            if saved := saves.wait():
                emit(saved)
            if summary["state"] != "interrupted":
                summary |= _final(parts, saves, emit)
    except BaseException as error:
        hidden = parts.config.hidden
        summary |= {"state": "failed", "error": hidden(str(error))}
        with contextlib.suppress(OSError):
            log.write(hidden("".join(traceback.format_exception(error))))
        _last_news(saves, emit)
        raise
    finally:
        seconds = before + monotonic() - began
        summary |= totals.summary() | {"step": job.step, "steps": job.steps, "best": job.best, "seconds": seconds}
        try:
            write_json(directory / "summary.json", summary)
        except OSError as error:
            if summary["state"] not in ("failed", "interrupted"):  # these have words of their own
                again = resume_command(directory, parts.config.grants)
                raise StorageError(
                    f"{directory / 'summary.json'}: cannot be written: {error.strerror or error}; the run is "
                    f"{summary['state']} and its checkpoints are kept; {again} writes it"
                ) from error
    return summary


def _last_news(saves: Saves, emit: Emit) -> None:
    """What became of the save that was under way when training failed; that failure stays the one that is told."""
    with contextlib.suppress(OSError):  # of listeners, on the disk that is full
        try:
            saved = saves.wait()
        except OSError as error:
            emit(Warned(f"the save that was under way failed as well: {error}"))
        else:
            if saved is not None:
                emit(saved)


def _describe(directory: Path, parts: Parts, saves: Saves, totals: Totals, resume: bool) -> list[str]:
    """Write what says how the run is made; of a resumed one read back what it has reached. Returns warnings."""
    versions = {"bigmodel-train": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
    facts = run_directory.environment(versions, parts.device.name, parts.dataset.fingerprint)
    if not resume:
        run_directory.describe(directory, parts.config.yaml(), facts)
        return []
    warnings = run_directory.moved(directory, facts)
    records, damaged = run_directory.cut_after(directory / "metrics.jsonl", parts.job.step)
    if damaged:
        lines = f"line{'s' * (len(damaged) > 1)} {', '.join(map(str, damaged))}"
        warnings.append(clip(f"metrics.jsonl: {lines} damaged and left out; all others are kept", 300))
    warnings += totals.restore(records, saves.restored.get("metrics"))
    run_directory.describe(directory, parts.config.yaml())
    return warnings


def _worked(directory: Path, totals: Totals) -> tuple[float, list[str]]:
    """Seconds of earlier starts: a killed one has left no summary, but records. And a warning, if it is damaged."""
    try:
        return max(run_directory.worked(directory), totals.seconds), []
    except ValueError as error:
        return totals.seconds, [str(error)]


def _discarding(directory: Path) -> Callable[..., None]:
    """On leaving with a ConfigError, take away the directory of a run that never saved anything."""

    def leave(kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ConfigError) and not checkpoint.steps(directory / "checkpoints"):
            shutil.rmtree(directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # the day's directory, if nothing else is in it
                directory.parent.rmdir()
                directory.parent.parent.rmdir()

    return leave


def _close(listeners: Sequence[Listener]) -> None:
    for listener in reversed(listeners):
        with contextlib.suppress(OSError):
            listener.close()


def _saves(directory: Path, parts: Parts) -> Saves:
    about = {"config": parts.config.shareable(), **parts.dataset.about()}
    return Saves(directory / "checkpoints", about, parts.settings.keep)


def _final(parts: Parts, saves: Saves, emit: Emit) -> dict[str, Any]:
    """The one look at the test split, with the best weights."""
    job, data = parts.job, parts.data
    if "test" not in data.splits:
        return {}
    step = job.step
    if job.best and job.best["step"] != job.step:
        try:
            found = saves.best(job)
        except StorageError as error:
            emit(Warned(f"{error}; testing the last weights instead of the best"))
        else:
            job.result.load_state_dict(found.weights)
            step = int(job.best["step"])
    began = monotonic()
    report = evaluate(job.evaluated, job.task, data.evaluation("test"), parts.device)
    emit(Evaluated(step, step / data.steps_per_epoch, "test", report, False, monotonic() - began, job.specs))
    about = parts.dataset.about()
    return {"test": report} | ({"classes": about["classes"]} if "classes" in about else {})
