"""Memory of each rank of a run and the bytes it sends in a step, for a plan: ranks are alike, so one stands for all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bigmodel.config.schema import Train
from bigmodel.formatting import format_si
from bigmodel.interfaces import Batch, Task
from bigmodel.runtime.blocks import repeated_blocks
from bigmodel.runtime.device import Device
from bigmodel.runtime.distributed import BUCKET
from bigmodel.training.tuning.cost import StepCost, estimate_step_cost

_COPIES_OF_A_BUCKET = 3  # flat, as it is sent, and as it has come
_GATHERED = 2  # blocks whose weights are whole: the one that computes, and the next one


@dataclass(frozen=True)
class RankCost:
    """Bytes of a rank: what it holds, what adding up and gathering take beside, and what it sends in a step.

    `casts` are weights in autocast's dtype; `checkpointed` is what both would take if blocks computed them twice.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    casts: int
    checkpointed: int
    exchange: int
    sent: int

    @property
    def peak(self) -> int:
        """Bytes in all. An upper bound: activations are dropped while the gradients come."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.casts + self.exchange

    def describe(self, room: float | None) -> str:
        """Describe the cost in a line; with `room`, the bytes of a card, say whether it fits."""
        parts = {
            "parameters": self.parameters,
            "gradients": self.gradients,
            "optimizer states": self.optimizer,
            "activations": self.activations,
            "weights in bf16": self.casts,
            "exchange": self.exchange,
        }
        memory = ", ".join(f"{name} {format_si(size, 'B')}" for name, size in parts.items() if size)
        sent = f"; {format_si(self.sent, 'B')} sent a step" if self.sent else ""
        return f"peak {self._compare_with(self.peak, room)}: {memory}{sent}{self._with_blocks(room)}"

    def _with_blocks(self, room: float | None) -> str:
        saved = self.activations + self.casts - self.checkpointed
        if saved <= 0:
            return ""
        peak = self._compare_with(self.peak - saved, room)
        return f"; with device.checkpoint_activations=blocks {peak}"

    @staticmethod
    def _compare_with(size: int, room: float | None) -> str:
        verdict = "" if room is None else f" ({'fits' if size <= room else 'does not fit'} {format_si(room, 'B')})"
        return f"{format_si(size, 'B')}{verdict}"


class RankPlan:
    """Costs of the ranks of a run, in whichever way they hold the model; `cost` is that of a micro-batch of one rank.

    Raises:
        RuntimeError: the model does something that has no shape without data.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        batch: Batch,
        optimizers: Sequence[torch.optim.Optimizer],
        device: Device,
        settings: Train,
    ) -> None:
        self._count = device.count
        self._pieces = settings.pieces
        self._passes = settings.accumulate * (settings.pieces or device.count) // device.count
        self._copies = 1 if settings.ema is None else 2  # of the weights
        self.cost: StepCost = estimate_step_cost(model, task, batch, optimizers, self._passes * device.count, device)
        self._largest = max((p.nbytes for p in model.parameters() if p.requires_grad), default=0)
        self._weights = _bytes(model.parameters())
        self._blocks = [_bytes(block.parameters()) for _, block in repeated_blocks(model)]

    def replicated(self) -> RankCost:
        """Return the cost where each rank holds the whole model."""
        cost, count = self.cost, self._count
        bucket = max(self._largest, min(cost.gradient_bytes, 4 * BUCKET))
        waiting = int(math.log2(self._pieces // count)) if self._pieces else 0  # sums of pieces beside the newest one
        return RankCost(
            parameters=cost.weight_bytes * self._copies,
            gradients=cost.gradient_bytes * (1 + waiting),
            optimizer=cost.optimizer_bytes,
            activations=cost.activation_bytes,
            casts=cost.cast_bytes,
            checkpointed=cost.checkpointed_bytes,
            exchange=_COPIES_OF_A_BUCKET * bucket if count > 1 else 0,
            sent=_sent(2 * cost.gradient_bytes, count),
        )

    def sharded(self, parts: int) -> RankCost:
        """Return the cost where the model is divided among each `parts` ranks, by block, as FSDP2 does.

        Weights are gathered twice in each micro-batch, and gradients divided as they come.
        """
        cost = self.cost
        outside = self._weights - sum(self._blocks)
        gradients = -(-cost.gradient_bytes // parts)
        return RankCost(
            parameters=-(-cost.weight_bytes // parts) * self._copies,
            gradients=gradients,
            optimizer=-(-cost.optimizer_bytes // parts),
            activations=cost.activation_bytes,
            casts=cost.cast_bytes,
            checkpointed=cost.checkpointed_bytes,
            exchange=outside + (_GATHERED + 2) * max(self._blocks, default=0),  # gradients, and as they are sent
            sent=self._passes * _sent(2 * self._weights + cost.gradient_bytes, parts)
            + _sent(2 * gradients, self._count // parts),
        )


def _sent(size: int, count: int) -> int:
    """Return what each of `count` ranks sends so that all have `size` bytes, or each its share of their sum."""
    return size * (count - 1) // count


def _bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.nbytes for parameter in parameters)
