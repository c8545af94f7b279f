"""SGD and Adam for a stack of K jobs: one operation for the parameter of all, each job with its own numbers.

The formulas are torch's. A job's `torch.optim` object keeps its state, as rows of the stacked one, so that a checkpoint
finds it where it always is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Group = Mapping[str, Any]


def has_stacked_step(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `Descent` does what this optimizer does."""
    others = ("dampening", "maximize", "amsgrad", "differentiable", "until")
    known = type(optimizer) in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
    return known and not any(group.get(name) for group in optimizer.param_groups for name in others)


class Descent:
    """The step of some parameters. `groups` are the K groups they belong to, one a job; `weights` are (K, ...), and
    `states` the optimizers' K states of each of them.
    """

    def __init__(
        self, groups: Sequence[Group], weights: Sequence[Tensor], states: Sequence[Sequence[dict[str, Tensor]]]
    ) -> None:
        self._groups, self._weights, self._device = groups, weights, weights[0].device
        self._adam = "betas" in groups[0]
        moments = ("exp_avg", "exp_avg_sq") if self._adam else ("momentum_buffer",) if groups[0]["momentum"] else ()
        self._moments = {
            name: [_stacked(name, of, like) for like, of in zip(weights, states, strict=True)] for name in moments
        }
        if self._adam:
            self._steps = [float(state.get("step", 0.0)) for state in states[0]]
            self._steps_K = torch.tensor(self._steps, device=self._device)
            for of in states:
                for state, step in zip(of, self._steps_K, strict=True):
                    state["step"] = step
        self._decays = any(group["weight_decay"] for group in groups)

    def __call__(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients (K, ...), which are overwritten; parameters without one stay."""
        lr, decay = ([float(group[key]) for group in self._groups] for key in ("lr", "weight_decay"))
        if self._adam:
            self._steps = [step + 1 for step in self._steps]
            self._steps_K += 1
            step = self._adam_step
        else:
            step = self._sgd_step
        for index, (weight, gradient) in enumerate(zip(self._weights, gradients, strict=True)):
            if gradient is None:
                continue
            if self._decays and self._groups[0].get("decoupled_weight_decay"):
                weight.mul_(self._wide([1 - rate * share for rate, share in zip(lr, decay, strict=True)], weight))
            elif self._decays:
                gradient.addcmul_(weight, self._wide(decay, weight))
            step(index, weight, gradient, lr)

    def _sgd_step(self, index: int, weight: Tensor, gradient: Tensor, lr: list[float]) -> None:
        if self._moments:
            momentum = self._wide([group["momentum"] for group in self._groups], weight)
            buffer = self._moments["momentum_buffer"][index]
            buffer.mul_(momentum).add_(gradient)
            gradient = gradient.addcmul_(buffer, momentum) if self._groups[0]["nesterov"] else buffer
        weight.addcmul_(gradient, self._wide([-rate for rate in lr], weight))

    def _adam_step(self, index: int, weight: Tensor, gradient: Tensor, lr: list[float]) -> None:
        first, second = (self._moments[name][index] for name in ("exp_avg", "exp_avg_sq"))
        betas = [group["betas"] for group in self._groups]
        first.lerp_(gradient, self._wide([1 - beta for beta, _ in betas], weight))
        second.mul_(self._wide([beta for _, beta in betas], weight))
        second.addcmul_(gradient.square_(), self._wide([1 - beta for _, beta in betas], weight))
        each = list(zip(lr, betas, self._steps, strict=True))
        size = self._wide([-rate / (1 - beta**step) for rate, (beta, _), step in each], weight)
        root = self._wide([(1 - beta**step) ** -0.5 for _, (_, beta), step in each], weight)
        eps = self._wide([group["eps"] for group in self._groups], weight)
        weight.addcdiv_(first * size, (second.sqrt() * root).add_(eps))

    def _wide(self, numbers: Sequence[float], like: Tensor) -> Tensor:
        """A number a job, to be broadcast over its rows."""
        return torch.tensor(numbers, device=self._device).view(-1, *(1,) * (like.ndim - 1))


def _stacked(name: str, states: Sequence[dict[str, Tensor]], like: Tensor) -> Tensor:
    """The jobs' states of this name as one tensor, of which each keeps its row; zeros where there was none."""
    stack = torch.stack([state.get(name, torch.zeros_like(row)) for state, row in zip(states, like, strict=True)])
    for state, row in zip(states, stack, strict=True):
        state[name] = row
    return stack
