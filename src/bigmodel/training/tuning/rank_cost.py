"""Memory of each rank of a run and the bytes it sends in a step, for a plan: ranks are alike, so one stands for all."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from bigmodel.formatting import format_si
from bigmodel.runtime.blocks import repeated_blocks
from bigmodel.runtime.distributed import BUCKET
from bigmodel.training.tuning.cost import StepCost

_COPIES_OF_A_BUCKET = 3  # flat, as it is sent, and as it has come


@dataclass(frozen=True)
class RankCost:
    """Bytes of a rank: what it holds, what adding up and gathering take beside, and what it sends in a step."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    exchange: int
    sent: int

    @property
    def peak(self) -> int:
        """Bytes in all. An upper bound: activations are dropped while the gradients come."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.exchange

    def describe(self, room: float | None) -> str:
        """Describe the cost in a line; with `room`, the bytes of a card, say whether it fits."""
        parts = {
            "parameters": self.parameters,
            "gradients": self.gradients,
            "optimizer states": self.optimizer,
            "activations": self.activations,
            "exchange": self.exchange,
        }
        memory = ", ".join(f"{name} {format_si(size, 'B')}" for name, size in parts.items() if size)
        verdict = "" if room is None else f"; {'fits' if self.peak <= room else 'does not fit'} {format_si(room, 'B')}"
        return f"peak {format_si(self.peak, 'B')}: {memory}; {format_si(self.sent, 'B')} sent a step{verdict}"


def replicated(cost: StepCost, model: nn.Module, count: int, keeps_average: bool, pieces: int | None) -> RankCost:
    """Return the cost of `count` ranks that hold the whole model; `cost` is that of their micro-batches."""
    largest = max((parameter.nbytes for parameter in model.parameters() if parameter.requires_grad), default=0)
    bucket = max(largest, min(cost.gradient_bytes, 4 * BUCKET))
    waiting = int(math.log2(pieces // count)) if pieces else 0  # sums of pieces, beside the newest one
    return RankCost(
        parameters=cost.weight_bytes * (1 + keeps_average),
        gradients=cost.gradient_bytes * (1 + waiting),
        optimizer=cost.optimizer_bytes,
        activations=cost.activation_bytes + cost.cast_bytes,
        exchange=_COPIES_OF_A_BUCKET * bucket if count > 1 else 0,
        sent=_share_sent(cost.gradient_bytes, count, times=2),
    )


def sharded(cost: StepCost, model: nn.Module, count: int, parts: int, keeps_average: bool, passes: int) -> RankCost:
    """Return the cost of `count` ranks that divide the model among `parts` of them, by block, as FSDP2 does.

    A rank gathers a block and the next one, twice in each of `passes` micro-batches, and the rest of the model once
    more; gradients are divided as they come.
    """
    whole = _bytes(model.parameters())
    blocks = [_bytes(block.parameters()) for _, block in repeated_blocks(model)]
    outside = whole - sum(blocks)
    largest = max(blocks, default=0)
    each = passes * _share_sent(whole, parts, times=2) + passes * _share_sent(cost.gradient_bytes, parts, times=1)
    return RankCost(
        parameters=-(-cost.weight_bytes // parts) * (1 + keeps_average),
        gradients=-(-cost.gradient_bytes // parts),
        optimizer=-(-cost.optimizer_bytes // parts),
        activations=cost.activation_bytes + cost.cast_bytes,
        exchange=outside + (2 + 2) * largest,  # weights of two blocks; a block's gradients, as they are and as sent
        sent=each + _share_sent(-(-cost.gradient_bytes // parts), count // parts, times=2),
    )


def _share_sent(size: int, count: int, times: int) -> int:
    """Return what each of `count` ranks sends to gather or to scatter `size` bytes, some `times`."""
    return times * size * (count - 1) // count


def _bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.nbytes for parameter in parameters)
