"""Training state (model, optimizers, EMA, step) and the train step that advances it.

A checkpoint holds just this: weights, optimizer state, their average, the integer `step`, and the running sums that the
log needs. Everything random is keyed by (seed, step), so restoring these restores the run bitwise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.errors import ConfigError, DivergedError
from bigmodel.interfaces import Batch, HasKernels, Task
from bigmodel.metric_spec import declared_specs
from bigmodel.optim.rows_step import step_of
from bigmodel.optim.schedules import step_midpoint
from bigmodel.runtime.batch_norm import running_statistics
from bigmodel.runtime.device import Device
from bigmodel.runtime.world import own_rows
from bigmodel.training.ema import update_ema, warmed_up
from bigmodel.training.nonfinite import NonFiniteGuard, StepRecord
from bigmodel.training.piece_tree import backward_as_tree
from bigmodel.training.restoring import load_optimizers, load_weights
from bigmodel.training.running_sums import RunningSums, add_sums

Tensors = dict[str, dict[str, Tensor]]  # file name to tensors


class TrainState:
    """Model, optimizers and step of a run in training. `best` is the best evaluation: value, step, and `since`, the
    number of evaluations after it.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        task: Task,
        optimizers: Sequence[torch.optim.Optimizer],
        schedule: Callable[[float], float],
        device: Device,
        seed: int,
        steps: int,
        accumulate: int = 1,
        pieces: int | None = None,
        clip_norm: float | None = None,
        ema: float | None = None,
        average: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.task = task
        self.steps = steps
        self.step = 0
        self.specs = declared_specs(task)
        self.best: dict[str, float] = {}
        self._callable = device.maybe_compile(model)
        self._loss = device.maybe_compile(task.loss, same_shapes=True)
        for optimizer in optimizers:
            if isinstance(optimizer, HasKernels):
                optimizer.compile_kernels(partial(device.maybe_compile, same_shapes=True))
        self.optimizers = optimizers
        self._schedule = schedule
        self.device = device
        self.seed = seed
        self.accumulate = accumulate
        self.pieces = pieces
        self.clip_norm = clip_norm
        self._ema_decay = ema
        self._parameters = [p for group in self.param_groups for p in group["params"]]
        buffers = {name: b for name, b in model.named_buffers() if b.is_floating_point() and not b.is_meta}
        self._statistics = running_statistics(model) if pieces else []  # their mean over the pieces is taken
        self._infinite = {name for name, b in buffers.items() if not b.isfinite().all()}  # as a mask of -inf
        self._checked = [*model.parameters(), *(b for name, b in buffers.items() if name not in self._infinite)]
        for group in self.param_groups:  # an optimizer that another state used keeps its base rate
            group.setdefault("initial_lr", float(group["lr"]))
        self._ema = (average or copy.deepcopy(model)).requires_grad_(False) if ema is not None else None
        self._steps = [step_of(optimizer, device.world.is_divided) for optimizer in optimizers]
        self._guard = NonFiniteGuard(optimizers, device)
        self._sums = RunningSums(device.accumulator_dtype, device.torch_device)  # since metrics were last taken
        self.grad_norm: Tensor = torch.zeros(())

    @property
    def eval_model(self) -> nn.Module:
        """The model to evaluate: the averaged weights if there are any."""
        return self._callable if self._ema is None else self._ema

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizers' parameter groups."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]  # loading replaces them

    @property
    def result_module(self) -> nn.Module:
        """The uncompiled module whose weights `eval_model` computes with: load weights into this one."""
        return self.model if self._ema is None else self._ema

    @property
    def last_lr(self) -> float:
        """Learning rate of the first parameter group in the last update."""
        return float(self.param_groups[0]["lr"])

    @property
    def last_loss(self) -> float | None:
        """Loss of the newest update that the host knows of, on a GPU up to four steps old."""
        return self._guard.last_loss

    def record_monitored(self, value: float, lower: bool) -> bool:
        """Record the monitored metric of an evaluation; return whether these weights are the best so far.

        If values are equal, the later counts as best, because its learning rate was lower; only a better one resets the
        patience.

        Raises:
            DivergedError: the metric is not finite.
        """
        if not math.isfinite(value):
            raise DivergedError(f"diverged by step {self.step}: the monitored metric is {value}; lower optim.lr")
        old = self.best.get("value", value)
        better = not self.best or (value < old if lower else value > old)
        since = 0 if better else self.best["since"] + 1
        best = better or value == old
        self.best = {"value": value, "step": self.step, "since": since} if best else self.best | {"since": since}
        return best

    def train_step(self, batch: Batch) -> None:
        """Take one optimizer step on one batch.

        Raises:
            DivergedError: the gradient is not finite, here or on a GPU up to four steps ago; weights, optimizer
                state and `step` are as they were before that step.
        """
        loss, sums = self.forward_backward(batch)
        self.grad_norm = self._clip()
        self._raise_if_nonfinite(self._guard.observe(self.step, self.last_lr, batch.sample_ids, loss, self.grad_norm))
        self.optimizer_step()
        self._sums.add(sums)
        self.finish_step()

    def forward_backward(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compute the gradients of this step into the parameters.

        Returns this rank's last micro-batch's loss, and the batch's sums by name.
        """
        self.prepare_step()
        world = self.device.world
        pieces = world.pieces(batch, self.pieces or world.size)
        if self.pieces:
            dtype = self.device.accumulator_dtype
            loss, sums = backward_as_tree(pieces, self._backward, self._parameters, self._statistics, dtype)
        else:
            loss, sums = self._backward(*next(iter(pieces)))
        moving = [one for one in self._statistics if one.is_floating_point()]
        sums = world.sum_step([*self._gradients(), *moving], sums, as_tree=self.pieces is not None)
        if moving:
            torch._foreach_div_(moving, len(batch.microbatches(self.pieces or 1)))
        if self._is_weighted:  # how many tokens a micro-batch has may be known only once its loss is
            count = sums["loss_denominator"]
            torch._foreach_div_(self._gradients(), torch.where(count > 0, count, 1).to(loss.dtype))
        return loss, sums

    @property
    def _is_weighted(self) -> bool:
        return self.accumulate > 1 or self.pieces is not None or self.device.world.size > 1

    def _backward(self, index: int, piece: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Add the gradients of the batch's `index`-th piece; return its last micro-batch's loss, and its sums."""
        sums: Mapping[str, Tensor] = {}
        for number, microbatch in enumerate(piece.microbatches(self.accumulate), index * self.accumulate):
            self.device.seed_rng(self.seed, "step", self.step, *(("piece", number) if number else ()))
            loss, outputs = self.loss(microbatch)
            added = self.device.world.counted(self.task.train_sums(loss, outputs.detach(), microbatch))
            weight = added["loss_denominator"].to(loss.dtype)
            (loss * weight if self._is_weighted else loss).backward()  # type: ignore[no-untyped-call]
            sums = add_sums(sums, added, self.device.accumulator_dtype)
        return loss, sums

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the task's loss and the model's outputs in the device's precision; compiled as one function, if
        anything is.
        """
        with self.device.autocast():
            return self._loss(self.model, batch)

    def prepare_step(self) -> None:
        """Set training mode and this step's learning rates.

        A group with `until`, a fraction of the run, has its whole schedule before that and no gradient afterwards.
        """
        self.model.train()
        self.device.mark_step_begin()
        for group in self.param_groups:
            group["lr"] = self.rate(group, self.step, self.steps)
            if "until" in group:
                trains = step_midpoint(self.step, self.steps) < group["until"]
                for parameter in group["params"]:
                    parameter.requires_grad_(trains)

    def rate(self, group: Mapping[str, Any], step: int, steps: int) -> float:
        """Return a parameter group's learning rate in update `step`, from 0, of a run of `steps` updates."""
        progress, until = step_midpoint(step, steps), group.get("until", 1.0)
        return float(group["initial_lr"] * self._schedule(progress / until)) if progress < until else 0.0

    def optimizer_step(self) -> None:
        """Step the optimizers, and drop the gradients."""
        with torch.no_grad():
            for take_step in self._steps:
                take_step()
        for parameter in self._parameters:
            parameter.grad = None

    def finish_step(self) -> None:
        """Update the average of the weights, and count the step."""
        if self._ema is not None and self._ema_decay is not None:
            update_ema(self._ema, self.model, warmed_up(self._ema_decay, self.step), self._infinite)
        self.step += 1

    def check_finite(self) -> None:
        """Check the weights before a save: a finite gradient can still overflow a weight.

        Raises:
            DivergedError: a weight is not finite, or the gradient of an update still in flight on a GPU.
        """
        self._raise_if_nonfinite(self._guard.drain())
        if not torch.isfinite(self.device.world.norm([*map(own_rows, self._checked)])):
            raise DivergedError(f"diverged by step {self.step}: weights are no longer finite; lower optim.lr")

    def pop_train_metrics(self) -> dict[str, float]:
        """Return the metrics over the samples since the last call, and begin anew. Synchronizes with the device.

        Raises:
            DivergedError: one of these updates was not finite.
        """
        self._raise_if_nonfinite(self._guard.drain())
        return self.task.train_metrics(self._sums.pop())

    def state_tensors(self) -> Tensors:
        """Return all tensors of a checkpoint by file name; they are the live ones, not copies."""
        files = {"model": dict(self.model.state_dict()), "optimizer": {}}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                files["optimizer"] |= {f"{number}.{index}.{key}": value for key, value in state.items()}
        if self._ema is not None:
            files["ema"] = dict(self._ema.state_dict())
        return files

    def state_scalars(self) -> dict[str, Any]:
        """Return the rest of a checkpoint, as JSON keeps it exactly."""
        return {"step": self.step, "steps": self.steps, "best": self.best, "tally": self._sums.to_json()}

    def load_state(self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Load what `tensors` and `state` of a checkpoint hold.

        Raises:
            ConfigError: the checkpoint is of another model or optimizer.
        """
        try:
            load_weights(self.model, tensors["model"], self.device.world)
            if self._ema is not None:
                load_weights(self._ema, tensors["ema"], self.device.world)
            load_optimizers(self.optimizers, tensors["optimizer"], self.device.world)
            self.step = int(state["step"])
            kinds = {"value": float, "step": int, "since": int}
            self.best = {key: kind(state["best"][key]) for key, kind in kinds.items() if state["best"]}
            if self.best and self.best["step"] > self.step:
                raise ValueError(f"its best step is {self.best['step']}, after its own {self.step}")
            self._sums.restore(state["tally"])
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            raise ConfigError(f"resume: the checkpoint does not fit this model and optimizer: {error}") from error

    def _raise_if_nonfinite(self, record: StepRecord | None) -> None:
        if record is not None:
            self.step = record.step  # this update and all later ones were skipped
            raise DivergedError(record.message())

    def _gradients(self) -> list[Tensor]:
        return [own_rows(p.grad) for p in self._parameters if p.grad is not None]

    def _clip(self) -> Tensor:
        norm = self.device.world.norm(gradients := self._gradients())
        if self.clip_norm is not None:
            torch._foreach_mul_(gradients, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm
