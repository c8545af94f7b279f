"""The training loop, all of it. It knows no config, files or terminal: it emits events and calls what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from bigmodel.events import Evaluated, Phase, Saved, Stepped, TrainLogged
from bigmodel.interfaces import Loader
from bigmodel.runtime.device import Device
from bigmodel.training.evaluation import evaluate
from bigmodel.training.state import TrainState


class Checkpointer(Protocol):
    """Where the loop puts what must survive."""

    def save(self, state: TrainState, passing: bool = False) -> None:
        """Start to commit the state; `passing`: no save was due. Raises what made an earlier save fail."""

    def completed(self) -> Iterable[Saved]:
        """Return the saves that have been committed since the last call; raise what made one fail."""


@dataclass(frozen=True)
class LoopOptions:
    """How often things happen, in steps, and what decides the best. `monitor` is None where nothing is held out."""

    log_every: int
    evaluate_every: int
    save_every: int
    monitor: str | None
    patience: int | None = None


def train(
    state: TrainState,
    data: Loader,
    options: LoopOptions,
    device: Device,
    checkpoints: Checkpointer,
    emit: Callable[[Any], None],
    should_stop: Callable[[], bool],
) -> str:
    """Take the state to its last step. Returns "done", "early_stopped" or "interrupted"; a save may be pending then."""
    if _out_of_patience(state, options):  # a run that had stopped early before it was resumed
        return "early_stopped"
    logged, samples, data_s, step_s = perf_counter(), 0, 0.0, 0.0
    batches = data.train_batches(state.step, state.steps)
    while state.step < state.steps:
        began = perf_counter()
        batch = next(batches)
        fetched = perf_counter()
        state.train_step(batch)
        data_s += fetched - began
        step_s += perf_counter() - fetched
        samples += len(batch.targets)
        emit(Stepped(state.step, len(batch.targets), state.last_loss))
        for saved in checkpoints.completed():
            emit(saved)

        last, epoch = state.step == state.steps, state.step / data.steps_per_epoch
        if last or state.step % options.log_every == 0:
            began = perf_counter()
            metrics = state.pop_train_metrics()  # the only place that waits for a GPU
            step_s += perf_counter() - began
            rate = samples / (perf_counter() - logged)
            norm, lr = float(state.grad_norm), state.last_lr
            emit(TrainLogged(state.step, epoch, metrics, lr, norm, rate, data_s, step_s, state.specs))
            logged, samples, data_s, step_s = perf_counter(), 0, 0.0, 0.0

        best, patience_out = False, False
        if options.monitor and (last or state.step % options.evaluate_every == 0):
            began = perf_counter()
            emit(Phase("evaluating val"))
            state.check_finite()
            report = evaluate(state.eval_model, state.task, data.eval_batches("val"), device)
            best = state.record_monitored(report[options.monitor], state.specs[options.monitor].direction == "min")
            emit(Evaluated(state.step, epoch, "val", report, best, perf_counter() - began, state.specs, state.last_lr))
            patience_out = _out_of_patience(state, options)
            logged += perf_counter() - began

        due = last or best or patience_out or state.step % options.save_every == 0
        if (stop := should_stop()) or due:
            began = perf_counter()
            state.check_finite()
            checkpoints.save(state, passing=not due)
            logged += perf_counter() - began
        if patience_out:
            return "early_stopped"
        if stop and not last:
            return "interrupted"
    return "done"


def _out_of_patience(state: TrainState, options: LoopOptions) -> bool:
    return options.patience is not None and bool(state.best) and state.best["since"] >= options.patience
