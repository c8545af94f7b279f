"""The training loop, all of it. It knows no config, files or terminal: it emits events and calls what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from bigmodel.events import Evaluated, Saved, Stepped, TrainLogged
from bigmodel.interfaces import Loader
from bigmodel.runtime.device import Device
from bigmodel.training.evaluation import evaluate
from bigmodel.training.state import TrainState


class Checkpointer(Protocol):
    """Where the loop puts what must survive."""

    def save(self, job: TrainState, passing: bool = False) -> Saved | None:
        """Begin to commit the job's state; `passing`: it is not due. Returns the save before it, if not told yet."""

    def poll(self) -> Saved | None:
        """The save that has been committed since the last call, if one has; raises what made it fail."""


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
    plan: LoopOptions,
    device: Device,
    checkpoints: Checkpointer,
    emit: Callable[[Any], None],
    should_stop: Callable[[], bool],
) -> str:
    """Take `job` to its last step. Returns "done", "early_stopped" or "interrupted"; a save may be under way then."""
    if _out_of_patience(state, plan):  # a run that had stopped so before it was resumed
        return "early_stopped"
    logged, samples, data_s, step_s = perf_counter(), 0, 0.0, 0.0
    batches = data.train_batches(state.step, state.steps)
    while state.step < state.steps:
        asked = perf_counter()
        batch = next(batches)
        got = perf_counter()
        state.train_step(batch)
        done = perf_counter()
        data_s, step_s, samples = data_s + got - asked, step_s + done - got, samples + len(batch.targets)
        emit(Stepped(state.step))
        if saved := checkpoints.poll():
            emit(saved)

        last, epoch = state.step == state.steps, state.step / data.steps_per_epoch
        if last or state.step % plan.log_every == 0:
            asked, metrics, lr = (
                perf_counter(),
                state.pop_train_metrics(),
                state.last_lr,
            )  # a GPU is waited for only here
            step_s += perf_counter() - asked
            rate = samples / (perf_counter() - logged)
            emit(TrainLogged(state.step, epoch, metrics, lr, float(state.grad_norm), rate, data_s, step_s, state.specs))
            logged, samples, data_s, step_s = perf_counter(), 0, 0.0, 0.0

        best, patience_out = False, False
        if plan.monitor and (last or state.step % plan.evaluate_every == 0):
            began = perf_counter()
            state.check_finite()
            report = evaluate(state.eval_model, state.task, data.eval_batches("val"), device)
            best = state.record_monitored(report[plan.monitor], lower=state.specs[plan.monitor].direction == "min")
            emit(Evaluated(state.step, epoch, "val", report, best, perf_counter() - began, state.specs))
            patience_out = _out_of_patience(state, plan)
            logged += perf_counter() - began

        stop = should_stop()
        due = last or best or patience_out or state.step % plan.save_every == 0
        if due or stop:
            began = perf_counter()
            state.check_finite()
            if saved := checkpoints.save(state, passing=not due):
                emit(saved)
            logged += perf_counter() - began
        if patience_out:
            return "early_stopped"
        if stop and not last:
            return "interrupted"
    return "done"


def _out_of_patience(state: TrainState, plan: LoopOptions) -> bool:
    return plan.patience is not None and bool(state.best) and state.best["since"] >= plan.patience
