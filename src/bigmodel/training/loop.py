"""The training loop, all of it. It knows no config, files or terminal: it emits events and calls what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from bigmodel.events import Evaluated, Saved, Stepped, Trained
from bigmodel.interfaces import Data
from bigmodel.runtime.device import Device
from bigmodel.training.evaluation import evaluate
from bigmodel.training.state import Job


class Checkpoints(Protocol):
    """Where the loop puts what must survive."""

    def save(self, job: Job, passing: bool = False) -> Saved | None:
        """Begin to commit the job's state; `passing`: it is not due. Returns the save before it, if not told yet."""

    def news(self) -> Saved | None:
        """The save that has been committed since the last call, if one has; raises what made it fail."""


@dataclass(frozen=True)
class Plan:
    """How often things happen, in steps, and what decides the best. `monitor` is None where nothing is held out."""

    log_every: int
    evaluate_every: int
    save_every: int
    monitor: str | None
    patience: int | None = None


def train(
    job: Job,
    data: Data,
    plan: Plan,
    device: Device,
    checkpoints: Checkpoints,
    emit: Callable[[Any], None],
    stopping: Callable[[], bool],
) -> str:
    """Take `job` to its last step. Returns "done", "early_stopped" or "interrupted"; a save may be under way then."""
    if _out_of_patience(job, plan):  # a run that had stopped so before it was resumed
        return "early_stopped"
    logged, samples, data_s, step_s = perf_counter(), 0, 0.0, 0.0
    batches = data.train(job.step, job.steps)
    while job.step < job.steps:
        asked = perf_counter()
        batch = next(batches)
        got = perf_counter()
        job.update(batch)
        done = perf_counter()
        data_s, step_s, samples = data_s + got - asked, step_s + done - got, samples + len(batch.targets)
        emit(Stepped(job.step))
        if saved := checkpoints.news():
            emit(saved)

        last, epoch = job.step == job.steps, job.step / data.steps_per_epoch
        if last or job.step % plan.log_every == 0:
            asked, metrics, lr = perf_counter(), job.read_tally(), job.last_lr  # a GPU is waited for only here
            step_s += perf_counter() - asked
            rate = samples / (perf_counter() - logged)
            emit(Trained(job.step, epoch, metrics, lr, float(job.grad_norm), rate, data_s, step_s, job.specs))
            logged, samples, data_s, step_s = perf_counter(), 0, 0.0, 0.0

        best, patience_out = False, False
        if plan.monitor and (last or job.step % plan.evaluate_every == 0):
            began = perf_counter()
            job.refuse_unsound()
            report = evaluate(job.evaluated, job.task, data.evaluation("val"), device)
            best = job.note(report[plan.monitor], lower=job.specs[plan.monitor].direction == "min")
            emit(Evaluated(job.step, epoch, "val", report, best, perf_counter() - began, job.specs))
            patience_out = _out_of_patience(job, plan)
            logged += perf_counter() - began

        stop = stopping()
        due = last or best or patience_out or job.step % plan.save_every == 0
        if due or stop:
            began = perf_counter()
            job.refuse_unsound()
            if saved := checkpoints.save(job, passing=not due):
                emit(saved)
            logged += perf_counter() - began
        if patience_out:
            return "early_stopped"
        if stop and not last:
            return "interrupted"
    return "done"


def _out_of_patience(job: Job, plan: Plan) -> bool:
    return plan.patience is not None and bool(job.best) and job.best["since"] >= plan.patience
