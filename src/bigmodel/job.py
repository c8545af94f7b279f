"""The state of a training run and the one thing that changes it: an update.

What a checkpoint holds is here: weights, optimizer state, their average, and the integer `step`, with the running sums
that the log needs. Everything random is keyed by (seed, step), so restoring these restores the run bitwise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.device import Device
from bigmodel.divergence import Update, Watch
from bigmodel.errors import ConfigError, DivergedError
from bigmodel.interfaces import Batch, Task
from bigmodel.light_torch import bare_step
from bigmodel.optim.muon import Muon
from bigmodel.schedules import midpoint
from bigmodel.tasks.metric_spec import declared

Tensors = dict[str, dict[str, Tensor]]  # file name to tensors


class Job:
    """A model in training. `best` is the best evaluation so far: value, step, and how many have come since."""

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
        clip_norm: float | None = None,
        ema: float | None = None,
    ) -> None:
        self.model, self.task, self.steps, self.step = model, task, steps, 0
        self.specs = declared(task)
        self.best: dict[str, float] = {}
        self._callable = device.compiled(model)
        self._loss = device.compiled(task.loss, same_shapes=True)
        for optimizer in optimizers:
            if isinstance(optimizer, Muon):  # torch's fused ones are one kernel as they are
                optimizer.orthogonalise = device.compiled(optimizer.orthogonalise, same_shapes=True)
        self.optimizers, self._schedule, self.device, self.seed = optimizers, schedule, device, seed
        self.accumulate, self.clip_norm, self._ema_decay = accumulate, clip_norm, ema
        self._parameters = [p for group in self.groups for p in group["params"]]
        buffers = {name: b for name, b in model.named_buffers() if b.is_floating_point()}
        self._infinite = {name for name, b in buffers.items() if not b.isfinite().all()}  # as a mask of -inf
        self._watched = [*model.parameters(), *(b for name, b in buffers.items() if name not in self._infinite)]
        for group in self.groups:
            group.setdefault("initial_lr", float(group["lr"]))  # an optimizer that another job had keeps its own rate
        self._ema = copy.deepcopy(model).requires_grad_(False) if ema is not None else None
        self._steps = [bare_step(optimizer) for optimizer in optimizers]
        self._watch = Watch(optimizers, device)
        self.tally: Tensor | None = None
        self.grad_norm: Tensor = torch.zeros(())

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count as the result: the average if there is one."""
        return self._callable if self._ema is None else self._ema

    @property
    def averages(self) -> bool:
        """Whether the result is an average of the weights."""
        return self._ema is not None

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizers' parameter groups."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]  # loading replaces them

    @property
    def result(self) -> nn.Module:
        """The module whose weights `evaluated` computes with, never compiled: to load weights into."""
        return self.model if self._ema is None else self._ema

    @property
    def last_lr(self) -> float:
        """Learning rate of the first parameter group in the last update."""
        return float(self.groups[0]["lr"])

    def note(self, value: float, lower: bool) -> bool:
        """Take note of the monitored metric after an evaluation; whether these weights are now the best.

        Of equals the later is best, having seen the lower learning rate; only a better one resets the patience.

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

    def update(self, batch: Batch) -> None:
        """One optimizer step on one batch.

        Raises:
            DivergedError: loss or gradient is not finite, here or on a GPU up to four steps ago; weights, optimizer
                state and `step` are as they were before that step.
        """
        loss, tally = self.gradients(batch)
        self.grad_norm = self._clip()
        self._refuse(self._watch.see(self.step, self.last_lr, batch.samples, loss, self.grad_norm))
        self.descend()
        if self.tally is not None and self.tally.shape != tally.shape:
            raise ConfigError(
                f"resume: the checkpoint has running sums of {len(self.tally)} numbers, and this task of {len(tally)}; "
                "it is of another task or damaged"
            )
        self.tally = tally if self.tally is None else self.tally + tally
        self.end_step()

    def gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Leave the gradients of this step in the parameters. Returns the last piece's loss, and the batch's tally."""
        self.begin_step()
        self.device.seed(self.seed, "step", self.step)
        pieces = batch.pieces(self.accumulate)
        tally: Tensor | None = None
        for piece in pieces:
            loss, outputs = self.loss(piece)
            added = self.task.tally(loss, outputs.detach(), piece).to(self.device.sum_dtype)
            (loss if len(pieces) == 1 else loss * added[0].to(loss.dtype)).backward()  # type: ignore[no-untyped-call]
            tally = added if tally is None else tally + added
        assert tally is not None
        if len(pieces) > 1:  # how many tokens a piece has may be known only once its loss is
            torch._foreach_div_(self._gradients(), torch.where(tally[0] > 0, tally[0], 1).to(loss.dtype))
        return loss, tally

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The task's loss, in the device's precision, and the model's outputs: compiled as one, if anything is."""
        with self.device.autocast():
            return self._loss(self.model, batch)

    def begin_step(self) -> None:
        """The model in training mode, and the rates of this step in the optimizers.

        A group with `until`, a fraction of the run, has the whole schedule before that, and costs no gradient
        afterwards.
        """
        self.model.train()
        self.device.begin_step()
        for group in self.groups:
            group["lr"] = self.rate(group, self.step, self.steps)
            if "until" in group:
                trains = midpoint(self.step, self.steps) < group["until"]
                for parameter in group["params"]:
                    parameter.requires_grad_(trains)

    def rate(self, group: Mapping[str, Any], step: int, steps: int) -> float:
        """The learning rate of a parameter group in an update, by its number from 0, of a run of `steps` updates."""
        progress, until = midpoint(step, steps), group.get("until", 1.0)
        return float(group["initial_lr"] * self._schedule(progress / until)) if progress < until else 0.0

    def descend(self) -> None:
        """Let the optimizers take the gradients, and drop these."""
        with torch.no_grad():
            for take_step in self._steps:
                take_step()
        for parameter in self._parameters:
            parameter.grad = None

    def end_step(self) -> None:
        """Once the weights are new: their average, and the count."""
        self._average()
        self.step += 1

    def refuse_unsound(self) -> None:
        """Before a save: a finite gradient can still throw the weights beyond what a float holds.

        Raises:
            DivergedError: a weight is not finite, or the gradient of an update that was not heard of yet.
        """
        self._refuse(self._watch.wait())
        if not torch.isfinite(torch.nn.utils.get_total_norm(self._watched)):
            raise DivergedError(f"diverged by step {self.step}: weights are no longer finite; lower optim.lr")

    def read_tally(self) -> dict[str, float]:
        """Metrics over the samples since the last call. Synchronises with the device.

        Raises:
            DivergedError: one of these updates was not sound.
        """
        self._refuse(self._watch.wait())
        assert self.tally is not None, "no update since the last reading"
        metrics, self.tally = self.task.metrics(self.tally.tolist()), None
        return metrics

    def tensors(self) -> Tensors:
        """All tensors of a checkpoint, by file; they are the live ones, not copies."""
        files = {"model": dict(self.model.state_dict()), "optimizer": {}}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                files["optimizer"] |= {f"{number}.{index}.{key}": value for key, value in state.items()}
        if self._ema is not None:
            files["ema"] = dict(self._ema.state_dict())
        return files

    def state(self) -> dict[str, Any]:
        """The rest of a checkpoint, as JSON keeps it exactly."""
        tally = None if self.tally is None else self.tally.tolist()
        return {"step": self.step, "steps": self.steps, "best": self.best, "tally": tally}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Become what `tensors` and `state` describe.

        Raises:
            ConfigError: the checkpoint is of another model or optimizer.
        """
        try:
            self.model.load_state_dict(tensors["model"])
            if self._ema is not None:
                self._ema.load_state_dict(tensors["ema"])
            for number, optimizer in enumerate(self.optimizers):
                per_parameter: dict[int, dict[str, Tensor]] = {}
                for name, value in tensors["optimizer"].items():
                    owner, index, key = name.split(".", 2)
                    if int(owner) == number:
                        per_parameter.setdefault(int(index), {})[key] = value
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": per_parameter, "param_groups": groups})
                _lay_out_as_parameters(optimizer)
            self.step = int(state["step"])
            kinds = {"value": float, "step": int, "since": int}
            self.best = {key: kind(state["best"][key]) for key, kind in kinds.items() if state["best"]}
            if self.best and self.best["step"] > self.step:
                raise ValueError(f"its best step is {self.best['step']}, after its own {self.step}")
            device, dtype = self.device.torch_device, self.device.sum_dtype
            sums = None if state["tally"] is None else [float(value) for value in state["tally"]]
            self.tally = None if sums is None else torch.tensor(sums, dtype=dtype, device=device)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            raise ConfigError(f"resume: the checkpoint does not fit this model and optimizer: {error}") from error

    def _refuse(self, unsound: Update | None) -> None:
        if unsound is not None:
            self.step = unsound.step  # it was left out, and with it all that came after
            raise DivergedError(unsound.words())

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self._parameters if p.grad is not None]

    def _clip(self) -> Tensor:
        gradients = self._gradients()
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_norm is not None:
            torch._foreach_mul_(gradients, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def _average(self) -> None:
        if self._ema is None or self._ema_decay is None:
            return
        live, averages = self.model.state_dict(), self._ema.state_dict()
        moving = [n for n, average in averages.items() if average.is_floating_point() and n not in self._infinite]
        for name in averages.keys() - set(moving):  # of an infinite value the average would be NaN
            averages[name].copy_(live[name])
        share = 1 - warmed_up(self._ema_decay, self.step)
        torch._foreach_lerp_([averages[name] for name in moving], [live[name] for name in moving], share)


def warmed_up(decay: float, step: int) -> float:
    """The decay of the average in an update, by its number from 0: (1 + step) / (10 + step) until that is larger.

    It spans the last ninth of the updates so far at most, so that the random start is soon forgotten; as TensorFlow's
    `ExponentialMovingAverage` with `num_updates`. A function of the step alone: nothing of it is saved.
    """
    return min(decay, (1 + step) / (10 + step))


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Fused optimizers take memory as it lies: a momentum in another layout would be that of other weights."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
