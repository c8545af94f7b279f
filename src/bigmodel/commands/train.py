"""`bigmodel-train`: from a checked config to a trained run, on one rank or several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bigmodel.commands.ranks import follow, run_on_ranks
from bigmodel.commands.resume import check_config_unchanged, check_data_means_the_same, describe_jumps
from bigmodel.commands.session import open_session, remove_if_unsaved
from bigmodel.commands.train_and_test import train_and_test
from bigmodel.config.config import Config
from bigmodel.errors import Interrupted
from bigmodel.events import Finished, Warned
from bigmodel.quoting import resume_command
from bigmodel.runs import checkpoint
from bigmodel.runs.directory import create_exclusive, create_run_directory
from bigmodel.runtime.offline import offline
from bigmodel.runtime.signals import StopRequest
from bigmodel.runtime.stdout import print_line
from bigmodel.training.build import TrainingRun, build_run
from bigmodel.training.error_translation import translate_oom, translate_run_errors
from bigmodel.training.tuning.auto_values import ResolvedConfig, resolve_auto
from bigmodel.training.tuning.dry_run import describe_run

Report = Callable[[str], object]
_BESIDE = "beside the training itself; the model or the data is too large"
_ONCE_MORE = "; where it is the data that is gone, add dataset.download=true"


@translate_oom(_BESIDE)
def run(
    config: Config,
    stop: StopRequest,
    directory: Path | None = None,
    resume: bool = False,
    own: bool = True,
    report: Report = lambda text: None,
) -> Path | None:
    """Train in a new run directory or, with `resume`, in that of an earlier start; return it, or None for a dry run.

    Where the config asks for several ranks, other processes train, and None is returned.

    With `own=False`, for a config that came with a run, nothing that is built may reach the network.
    Until the first event `report` gets a text about the current activity, and "" when that is over.

    Raises:
        BigmodelError: what ended the run, with its exit code; everything reached so far is saved.
    """
    train_here = partial(run_in_this_process, directory=directory, resume=resume, own=own)
    if run_on_ranks(config, stop, train_here, report):
        return None
    return train_here(config, stop=stop, report=report)


@translate_oom(_BESIDE)
def run_in_this_process(
    config: Config,
    stop: StopRequest,
    directory: Path | None = None,
    resume: bool = False,
    own: bool = True,
    report: Report = lambda text: None,
) -> Path | None:
    """Train as `run`, in this process: alone, or as the rank that it has joined as."""
    if resume and directory is not None:
        built, auto = _build_resumed(config, directory, own, report)
    else:
        built, auto = _build(config, own, report)
    if built.settings.dry_run:
        report("counting parameters and operations")
        plan = describe_run(built)
        report("")
        print(plan)
        return None
    if built.device.world.rank:
        stop.defer()
        follow(built, stop)
        return None
    return _train_in_directory(built, auto, stop, directory, resume, report)


def _build(
    config: Config, may_download: bool, report: Report, load_initial_weights: bool = True
) -> tuple[TrainingRun, ResolvedConfig]:
    """Resolve what is `auto` and build the run; without `may_download` nothing reaches the network."""
    with (
        translate_oom("before the first step: the model or the data is too large"),
        contextlib.nullcontext() if may_download else offline(_ONCE_MORE),
    ):
        auto = resolve_auto(config, report)
        return build_run(auto.config, load_initial_weights, report), auto


def _build_resumed(
    config: Config, directory: Path, may_download: bool, report: Report
) -> tuple[TrainingRun, ResolvedConfig]:
    """Build the run to resume in `directory`, with warnings about all that has changed since it was saved.

    Raises:
        ConfigError: the config is not the one that the run was trained with.
        DataError: classes, columns or tokens differ from those that the weights were trained on.
    """
    checkpoints = directory / "checkpoints"
    is_saved = bool(checkpoint.list_checkpoints(checkpoints))
    state = checkpoint.newest_state(checkpoints) if is_saved else None
    warnings = check_config_unchanged(directory, config, state)
    # a run that ended before its first save begins anew, with initial weights
    built, auto = _build(config, may_download, report, load_initial_weights=not is_saved)
    if state is not None:
        check_data_means_the_same(directory, state, built.dataset.processor_spec())
        warnings += describe_jumps(built.state, state, built.settings.patience)
    built.warnings = [*built.warnings, *warnings]
    return built, auto


def _train_in_directory(
    built: TrainingRun, auto: ResolvedConfig, stop: StopRequest, directory: Path | None, resume: bool, report: Report
) -> Path:
    """Train in the run's directory, which a new run creates, as the only rank that writes; return the directory.

    Raises:
        Interrupted: a signal has stopped the run, and it is saved.
    """
    report("opening the run's directory")
    for text in (said := _start_lines(built)):
        print_line(text)
    stop.defer()  # from here on a signal finds something to save
    if directory is None:
        directory = create_run_directory(Path(built.settings.output_dir))
    elif not resume:
        directory = create_exclusive(directory)
    trust = built.config.trust_for_resume
    with (
        contextlib.nullcontext() if resume else remove_if_unsaved(directory),
        translate_run_errors(directory, built.state, trust),
        open_session(directory, built, auto, said, resume) as session,
    ):
        report("")
        for text in session.warnings:
            session.emit(Warned(text))
        summary = train_and_test(session, stop)
        if summary["state"] == "interrupted":
            by = stop.name or "a signal to another rank"
            raise Interrupted(
                f"stopped by {by} at step {built.state.step} of {built.state.steps}, saved; "
                f"resume with: {resume_command(directory, trust)}"
            )
        session.emit(Finished(summary | {"grants": trust}))
    return directory


def _start_lines(built: TrainingRun) -> list[str]:
    """Return what was guessed, set or changed, which is printed and logged at the start."""
    lines = [*built.notes, *built.init_report]
    if built.device.departs:
        lines.append(f"device: {built.device.choice}")
    return lines
