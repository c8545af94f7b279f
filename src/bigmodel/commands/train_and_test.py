"""Train a run in its open directory, test its best weights, and write `summary.json`, however it ends."""

from __future__ import annotations

import contextlib
import traceback
from functools import partial
from time import monotonic
from typing import Any

from bigmodel.commands.ranks import share_tested, should_stop
from bigmodel.commands.session import Session
from bigmodel.errors import PeerLost, StorageError
from bigmodel.events import Evaluated, Phase, Started, Warned
from bigmodel.metric_spec import to_json
from bigmodel.quoting import resume_command
from bigmodel.runtime.signals import StopRequest
from bigmodel.safe_files import write_json
from bigmodel.training.error_translation import say_how_to_resume, translate_run_errors
from bigmodel.training.evaluation import evaluate
from bigmodel.training.loop import train
from bigmodel.training.restoring import load_weights


def train_and_test(session: Session, stop: StopRequest) -> dict[str, Any]:
    """Train, test, and write `summary.json`, however it ends. Returns the summary.

    Raises:
        StorageError: the summary of a finished run cannot be written.
    """
    built, state, directory = session.built, session.built.state, session.directory
    began = monotonic()
    summary: dict[str, Any] = {"state": "running", "monitor": built.settings.monitor}
    summary["directory"] = str(directory.resolve())  # the same wherever a run is resumed from
    summary |= {"metrics": to_json(state.specs), "splits": dict(built.loader.splits)}
    trust = built.config.trust_for_resume
    try:
        with translate_run_errors(directory, state, trust), say_how_to_resume(directory, state, trust):
            summary["state"] = _train(session, stop)
            if summary["state"] != "interrupted":
                summary |= _test_best_weights(session)
    except BaseException as error:
        summary |= {"state": "failed", "error": built.config.redact(str(error))}
        _log_failure(session, error)
        raise
    finally:
        seconds = session.seconds_before + monotonic() - began
        summary |= session.totals.summary()
        summary |= {"step": state.step, "steps": state.steps, "best": state.best, "seconds": seconds}
        _write_summary(session, summary)
    return summary


def _train(session: Session, stop: StopRequest) -> str:
    """Run the training loop and wait for its last save. Returns how the loop ended."""
    built, state, emit = session.built, session.built.state, session.emit
    where, monitor = (str(session.directory), built.device.name), built.settings.monitor
    emit(Started(state.step, state.steps, built.loader.steps_per_epoch, *where, monitor))
    emit(Phase("first step (compiling)" if built.config.values["device"]["compile"] else "first step"))
    stops = partial(should_stop, built, stop)
    outcome = train(state, built.loader, built.loop_options, built.device, session.checkpoints, emit, stops)
    if state.steps == 0:  # epochs=0: weights from elsewhere are to be tested and kept
        session.checkpoints.save(state)
    emit(Phase("saving"))
    for saved in session.checkpoints.completed(wait=True):
        emit(saved)
    return outcome


def _test_best_weights(session: Session) -> dict[str, Any]:
    """Evaluate the test split once, with the best weights."""
    built, emit = session.built, session.emit
    state, data = built.state, built.loader
    if "test" not in data.splits:
        return {}
    step = state.step
    if state.best and state.best["step"] != state.step:
        try:
            found = session.checkpoints.load_best(state)
        except StorageError as error:
            emit(Warned(f"{error}; testing the last weights instead of the best"))
        else:
            load_weights(state.result_module, found.weights, built.device.world)
            step = int(state.best["step"])
    share_tested(built, session.directory, step)
    began = monotonic()
    emit(Phase("testing the best weights"))
    report = evaluate(state.eval_model, state.task, data.eval_batches("test"), built.device)
    emit(Evaluated(step, step / data.steps_per_epoch, "test", report, False, monotonic() - began, state.specs))
    about = built.dataset.processor_spec()
    return {"test": report} | ({"classes": about["classes"]} if "classes" in about else {})


def _log_failure(session: Session, error: BaseException) -> None:
    """Log the traceback, and report the save that was pending; the failure stays the one that is raised."""
    told = str(error) if isinstance(error, PeerLost) else "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):  # of listeners, on the disk that is full
        session.log.write(session.built.config.redact(told))
    with contextlib.suppress(OSError):
        try:
            done = session.checkpoints.completed(wait=True)
        except (OSError, PeerLost) as failed:
            session.emit(Warned(f"the save that was under way failed as well: {failed}"))
        else:
            for saved in done:
                session.emit(saved)


def _write_summary(session: Session, summary: dict[str, Any]) -> None:
    """Write `summary.json`. Where that fails, a run that has failed or was interrupted has an error of its own."""
    directory = session.directory
    try:
        write_json(directory / "summary.json", summary)
    except OSError as error:
        if summary["state"] not in ("failed", "interrupted"):
            again = resume_command(directory, session.built.config.trust_for_resume)
            raise StorageError(
                f"{directory / 'summary.json'}: cannot be written: {error.strerror or error}; the run is "
                f"{summary['state']} and its checkpoints are kept; {again} writes it"
            ) from error
