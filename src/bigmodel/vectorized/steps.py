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
        self._decoupled = bool(groups[0].get("decoupled_weight_decay"))
        self._number_K: dict[str, Tensor] = {}

    def __call__(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients (K, ...), which are overwritten; parameters without one stay."""
        if self._adam:
            self._steps = [step + 1 for step in self._steps]
            self._steps_K += 1
        numbers = self._numbers()
        packed = torch.tensor(list(numbers.values()), pin_memory=self._device.type == "cuda")  # else it is waited for
        self._number_K = dict(zip(numbers, packed.to(self._device, non_blocking=True), strict=True))
        step = self._adam_step if self._adam else self._sgd_step
        for index, (weight, gradient) in enumerate(zip(self._weights, gradients, strict=True)):
            if gradient is None:
                continue
            if self._decays and self._decoupled:
                weight.mul_(self._wide("kept", weight))
            elif self._decays:
                gradient.addcmul_(weight, self._wide("decay", weight))
            step(index, weight, gradient)

    def _numbers(self) -> dict[str, list[float]]:
        """All that this step multiplies by: K numbers each, one a job."""
        lr, decay = ([float(group[key]) for group in self._groups] for key in ("lr", "weight_decay"))
        found = {"decay": decay, "kept": [1 - rate * share for rate, share in zip(lr, decay, strict=True)]}
        if not self._adam:
            return found | {"rate": [-rate for rate in lr], "momentum": [group["momentum"] for group in self._groups]}
        betas = [group["betas"] for group in self._groups]
        each = list(zip(lr, betas, self._steps, strict=True))
        return found | {
            "first": [1 - beta for beta, _ in betas],
            "second": [beta for _, beta in betas],
            "squares": [1 - beta for _, beta in betas],
            "size": [-rate / (1 - beta**step) for rate, (beta, _), step in each],
            "root": [(1 - beta**step) ** -0.5 for _, (_, beta), step in each],
            "eps": [group["eps"] for group in self._groups],
        }

    def _sgd_step(self, index: int, weight: Tensor, gradient: Tensor) -> None:
        if self._moments:
            momentum = self._wide("momentum", weight)
            buffer = self._moments["momentum_buffer"][index]
            buffer.mul_(momentum).add_(gradient)
            gradient = gradient.addcmul_(buffer, momentum) if self._groups[0]["nesterov"] else buffer
        weight.addcmul_(gradient, self._wide("rate", weight))

    def _adam_step(self, index: int, weight: Tensor, gradient: Tensor) -> None:
        first, second = (self._moments[name][index] for name in ("exp_avg", "exp_avg_sq"))
        first.lerp_(gradient, self._wide("first", weight))
        second.mul_(self._wide("second", weight))
        second.addcmul_(gradient.square_(), self._wide("squares", weight))
        weight.addcdiv_(
            first * self._wide("size", weight),
            (second.sqrt() * self._wide("root", weight)).add_(self._wide("eps", weight)),
        )

    def _wide(self, name: str, like: Tensor) -> Tensor:
        """A number a job, to be broadcast over its rows."""
        return self._number_K[name].view(-1, *(1,) * (like.ndim - 1))


def _stacked(name: str, states: Sequence[dict[str, Tensor]], like: Tensor) -> Tensor:
    """The jobs' states of this name as one tensor, of which each keeps its row; zeros where there was none."""
    stack = torch.stack([state.get(name, torch.zeros_like(row)) for state, row in zip(states, like, strict=True)])
    for state, row in zip(states, stack, strict=True):
        state[name] = row
    return stack
