"""`bigmodel-train`: train from a checked config into a run directory."""

from __future__ import annotations

import contextlib
import shutil
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from bigmodel import __version__
from bigmodel.commands.ranks import follow, run_on_ranks, should_stop, tell_followers
from bigmodel.commands.resume import check_config_unchanged, check_data_means_the_same, describe_jumps
from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate
from bigmodel.errors import ConfigError, Interrupted, StorageError
from bigmodel.events import Evaluated, Finished, Phase, Started, Warned
from bigmodel.formatting import truncate
from bigmodel.interfaces import Listener
from bigmodel.listeners.log_file import LogFile
from bigmodel.listeners.metrics_file import MetricsFile
from bigmodel.listeners.totals import RunTotals
from bigmodel.metric_spec import to_json
from bigmodel.quoting import resume_command
from bigmodel.runs import checkpoint
from bigmodel.runs import directory as run_directory
from bigmodel.runs import environment as surroundings
from bigmodel.runs.lock import RunLock
from bigmodel.runs.metrics_repair import read_elapsed_seconds, truncate_metrics
from bigmodel.runtime.offline import offline
from bigmodel.runtime.signals import StopRequest
from bigmodel.runtime.stdout import print_line
from bigmodel.safe_files import write_json
from bigmodel.training.build import TrainingRun, build_run
from bigmodel.training.error_translation import say_how_to_resume, translate_oom, translate_run_errors
from bigmodel.training.evaluation import evaluate
from bigmodel.training.loop import train
from bigmodel.training.saver import AsyncCheckpointer
from bigmodel.training.tuning.auto_values import resolve_auto
from bigmodel.training.tuning.dry_run import describe_run

Emit = Callable[[Any], None]
_ONCE_MORE = "; where it is the data that is gone, add dataset.download=true"


@translate_oom("beside the training itself; the model or the data is too large")
def run(
    config: Config,
    stop: StopRequest,
    directory: Path | None = None,
    resume: bool = False,
    own: bool | None = None,
    report: Callable[[str], object] = lambda text: None,
    in_one_process: bool = False,
) -> Path | None:
    """Train in a new run directory or, with `resume`, in that of an earlier start; return it, or None for a dry run.

    With several ranks, others train and None is returned, unless this process has joined them: `in_one_process`.

    Nothing that is built may reach the network on a resume, nor where the config is not the user's `own`. Until the
    first event `report` is told what is being done, and "" when that is over.

    Raises:
        BigmodelError: what ended the run, with its exit code; everything reached so far is saved.
    """
    in_one = partial(run, config, directory=directory, resume=resume, own=own, in_one_process=True)
    if not in_one_process and run_on_ranks(config, stop, in_one, report):
        return None
    saved = resume and directory is not None and bool(checkpoint.list_checkpoints(directory / "checkpoints"))
    state = checkpoint.newest_state(directory / "checkpoints") if saved and directory is not None else None
    notes = check_config_unchanged(directory, config, state) if resume and directory is not None else []
    from_elsewhere = resume if own is None else not own
    with (
        translate_oom("before the first step: the model or the data is too large"),
        offline(_ONCE_MORE) if from_elsewhere else contextlib.nullcontext(),
    ):
        found = resolve_auto(config, report)
        # a run that ended before its first save begins anew
        built = build_run(found.config, load_initial_weights=not saved, report=report)
    settings = built.settings
    built.warnings = [*built.warnings, *notes]
    if state is not None and directory is not None:
        check_data_means_the_same(directory, state, built.dataset.processor_spec())
        built.warnings = [*built.warnings, *describe_jumps(built.state, state, settings.patience)]
    if settings.dry_run:
        report("counting parameters and operations")
        plan = describe_run(built)
        report("")
        print(plan)
        return None
    if built.device.world.rank:
        stop.defer()
        follow(built, stop)
        return None
    report("opening the run's directory")
    said = [*built.notes, *built.init_report]
    if built.device.departs:
        said.append(f"device: {built.device.choice}")
    for text in said:
        print_line(text)
    stop.defer()  # from here on a signal finds something to save
    if directory is None:
        directory = run_directory.create_run_directory(Path(settings.output_dir))
    elif not resume:
        directory = run_directory.create_exclusive(directory)
    with contextlib.ExitStack() as stack:
        if not resume:
            stack.push(_remove_if_unsaved(directory))
        stack.enter_context(translate_run_errors(directory, built.state, built.config.trust_for_resume))
        lock = RunLock(directory)
        stack.callback(lock.release)
        totals = RunTotals()
        saves = _checkpointer(directory, built, totals)
        warnings = [*built.warnings, *(saves.restore(built.state) if resume else [])]
        warnings += _write_description(directory, built, saves, totals, resume)
        tell_followers(built, directory, restored=bool(saves.restored))
        before, damage = _elapsed_before(directory, totals)
        warnings += damage
        log = LogFile(directory)
        listeners: list[Listener] = [log, MetricsFile(directory), totals]
        found.write(directory)
        for text in (*found.lines, *said):
            log.write(text)
        stack.callback(_close, listeners)
        for name, node in settings.listeners.items():
            given = {"directory": directory, "training_run": built}
            listeners.append(instantiate(f"listeners.{name}", node, config.trust, **given))

        if settings.profile:
            from bigmodel.training.tuning.profile import Profiler  # only a profile needs it

            listeners.append(Profiler(built, saves, directory))

        def emit(event: Any) -> None:
            for listener in listeners:
                listener(event)

        report("")
        for text in warnings:
            emit(Warned(text))
        summary = _train_and_test(directory, built, saves, emit, stop, log, totals, before)
        if summary["state"] == "interrupted":
            by = stop.name or "a signal to another rank"
            raise Interrupted(
                f"stopped by {by} at step {built.state.step} of {built.state.steps}, saved; "
                f"resume with: {resume_command(directory, built.config.trust_for_resume)}"
            )
        emit(Finished(summary | {"grants": built.config.trust_for_resume}))
    return directory


def _train_and_test(
    directory: Path,
    built: TrainingRun,
    saves: AsyncCheckpointer,
    emit: Emit,
    stop: StopRequest,
    log: LogFile,
    totals: RunTotals,
    before: float,
) -> dict[str, Any]:
    """Train, test, and write `summary.json`, however it ends. `before` is seconds of earlier starts."""
    state = built.state
    began = monotonic()
    summary: dict[str, Any] = {"state": "running", "monitor": built.settings.monitor}
    summary["directory"] = str(directory.resolve())  # the same wherever a run is resumed from
    summary |= {"metrics": to_json(state.specs), "splits": dict(built.loader.splits)}
    try:
        trust = built.config.trust_for_resume
        with translate_run_errors(directory, state, trust), say_how_to_resume(directory, state, trust):
            where, monitor = (str(directory), built.device.name), built.settings.monitor
            emit(Started(state.step, state.steps, built.loader.steps_per_epoch, *where, monitor))
            emit(Phase("first step (compiling)" if built.config.values["device"]["compile"] else "first step"))
            stops = partial(should_stop, built, stop)
            summary["state"] = train(state, built.loader, built.loop_options, built.device, saves, emit, stops)
            if state.steps == 0:  # epochs=0: weights from elsewhere are to be tested and kept
                saves.save(state)
            emit(Phase("saving"))
            for saved in saves.completed(wait=True):
                emit(saved)
            if summary["state"] != "interrupted":
                summary |= _test_best_weights(built, saves, emit)
    except BaseException as error:
        hidden = built.config.redact
        summary |= {"state": "failed", "error": hidden(str(error))}
        with contextlib.suppress(OSError):
            log.write(hidden("".join(traceback.format_exception(error))))
        _report_pending_save(saves, emit)
        raise
    finally:
        seconds = before + monotonic() - began
        summary |= totals.summary() | {"step": state.step, "steps": state.steps, "best": state.best, "seconds": seconds}
        try:
            write_json(directory / "summary.json", summary)
        except OSError as error:
            if summary["state"] not in ("failed", "interrupted"):  # these have words of their own
                again = resume_command(directory, built.config.trust_for_resume)
                raise StorageError(
                    f"{directory / 'summary.json'}: cannot be written: {error.strerror or error}; the run is "
                    f"{summary['state']} and its checkpoints are kept; {again} writes it"
                ) from error
    return summary


def _report_pending_save(saves: AsyncCheckpointer, emit: Emit) -> None:
    """Report the save that was pending when training failed; that failure stays the one that is raised."""
    with contextlib.suppress(OSError):  # of listeners, on the disk that is full
        try:
            done = saves.completed(wait=True)
        except OSError as error:
            emit(Warned(f"the save that was under way failed as well: {error}"))
        else:
            for saved in done:
                emit(saved)


def _write_description(
    directory: Path, built: TrainingRun, saves: AsyncCheckpointer, totals: RunTotals, resume: bool
) -> list[str]:
    """Write what describes the run; of a resumed one, read back what it has reached. Returns warnings."""
    versions = {"bigmodel-train": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
    environment = surroundings.collect_environment(versions, built.device.name, built.dataset.fingerprint)
    if not resume:
        run_directory.write_description(directory, built.config.to_yaml(), environment)
        return []
    warnings = surroundings.describe_changes(directory, environment)
    records, damaged = truncate_metrics(directory / "metrics.jsonl", built.state.step)
    if damaged:
        lines = f"line{'s' * (len(damaged) > 1)} {', '.join(map(str, damaged))}"
        warnings.append(truncate(f"metrics.jsonl: {lines} damaged and left out; all others are kept", 300))
    warnings += totals.restore(records, saves.restored.get("metrics"))
    run_directory.write_description(directory, built.config.to_yaml())
    return warnings


def _elapsed_before(directory: Path, totals: RunTotals) -> tuple[float, list[str]]:
    """Return the seconds of earlier starts, from the summary or, for a killed one, its records; and a warning if
    damaged.
    """
    try:
        return max(read_elapsed_seconds(directory), totals.seconds), []
    except ValueError as error:
        return totals.seconds, [str(error)]


def _remove_if_unsaved(directory: Path) -> Callable[..., None]:
    """On leaving with a ConfigError, remove the directory of a run that never saved anything."""

    def leave(kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ConfigError) and not checkpoint.list_checkpoints(directory / "checkpoints"):
            shutil.rmtree(directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # the day's directory, if nothing else is in it
                directory.parent.rmdir()
                directory.parent.parent.rmdir()

    return leave


def _close(listeners: Sequence[Listener]) -> None:
    for listener in reversed(listeners):
        with contextlib.suppress(OSError):
            listener.close()


def _checkpointer(directory: Path, built: TrainingRun, totals: RunTotals) -> AsyncCheckpointer:
    about = {"config": built.config.redacted_dict(), **built.dataset.processor_spec()}
    return AsyncCheckpointer(directory / "checkpoints", about, built.settings.keep, totals.state)


def _test_best_weights(built: TrainingRun, saves: AsyncCheckpointer, emit: Emit) -> dict[str, Any]:
    """Evaluate the test split once, with the best weights."""
    state, data = built.state, built.loader
    if "test" not in data.splits:
        return {}
    step = state.step
    if state.best and state.best["step"] != state.step:
        try:
            found = saves.load_best(state)
        except StorageError as error:
            emit(Warned(f"{error}; testing the last weights instead of the best"))
        else:
            state.result_module.load_state_dict(found.weights)
            step = int(state.best["step"])
    built.device.world.broadcast(state.result_module.state_dict().values())
    began = monotonic()
    emit(Phase("testing the best weights"))
    report = evaluate(state.eval_model, state.task, data.eval_batches("test"), built.device)
    emit(Evaluated(step, step / data.steps_per_epoch, "test", report, False, monotonic() - began, state.specs))
    about = built.dataset.processor_spec()
    return {"test": report} | ({"classes": about["classes"]} if "classes" in about else {})
