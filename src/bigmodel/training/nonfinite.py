"""A gradient that is not finite reaches no weight, and no host waits for a GPU to be sure of that.

Where a number can be read for nothing it is read before the step. On a GPU reading waits for all that is queued, so the
device itself leaves out that step and all later ones, by the flag that gradient scalers use (`found_inf`), and the host
hears of it some steps later, through a copy that it does not wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.runtime.device import Device

MAX_LAG_STEPS = 4  # steps; the host is never further ahead than that of what it has heard
MAX_SAMPLES_SHOWN = 5  # samples of a batch that are told when it diverges


@dataclass(frozen=True)
class StepRecord:
    """Record of one step: its number, rate and samples, and its loss and gradient norm as one tensor (2,)."""

    step: int
    lr: float
    samples: Tensor | None
    loss_norm: Tensor

    @property
    def is_finite(self) -> bool:
        """Whether its gradient is finite. Waits, if the tensor is on a GPU."""
        return bool(self.loss_norm[1].isfinite())

    def message(self) -> str:
        """What is wrong with it, and what to do."""
        loss, norm = self.loss_norm.tolist()
        return (
            f"diverged at step {self.step}{_list_samples(self.samples)}: loss {loss:g}, gradient norm {norm:g}; "
            f"the weights are as before this step. Lower optim.lr (now {self.lr:g}) or set clip_norm"
        )


class NonFiniteGuard:
    """Sees every update before its optimizer step. One that was not sound is returned, at once or some steps later;
    weights and optimizer state are then as before it.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], device: Device) -> None:
        self._unsound: Tensor | None = None
        self._queued: deque[tuple[StepRecord, torch.cuda.Event | None]] = deque()
        if device.is_async and all(map(_supports_found_inf, optimizers)):
            self._unsound = torch.zeros((), device=device.torch_device)
            for optimizer in optimizers:
                optimizer.found_inf = self._unsound  # type: ignore[attr-defined]

    def observe(self, step: int, lr: float, samples: Tensor | None, loss: Tensor, norm: Tensor) -> StepRecord | None:
        """The update that is about to be made; returns this one or an earlier one if it was not sound."""
        loss_norm = torch.stack([loss.detach().float(), norm.float()])
        if self._unsound is None:
            update = StepRecord(step, lr, samples, loss_norm)
            return None if update.is_finite else update
        self._unsound.logical_or_(norm.isfinite().logical_not())
        told = loss_norm.to("cpu", non_blocking=True)  # into pinned memory, that of an earlier step
        arrived = torch.cuda.Event() if loss_norm.is_cuda else None  # type: ignore[no-untyped-call]
        if arrived is not None:
            arrived.record()
        self._queued.append((StepRecord(step, lr, samples, told), arrived))
        return self._poll(MAX_LAG_STEPS)

    def drain(self) -> StepRecord | None:
        """The first update that was not sound, if there is one; waits until all that were seen are known."""
        return self._poll(0)

    def _poll(self, late: int) -> StepRecord | None:
        while self._queued:
            update, arrived = self._queued[0]
            if arrived is None or not arrived.query():  # type: ignore[no-untyped-call]
                if len(self._queued) <= late:
                    break
                if arrived is not None:
                    arrived.synchronize()
            self._queued.popleft()
            if not update.is_finite:
                return update
        return None


def _supports_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step obeys `found_inf`: torch's fused ones and our own do."""
    return hasattr(optimizer, "found_inf") or bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _list_samples(samples_N: Tensor | None) -> str:
    if samples_N is None:
        return ""
    first = ", ".join(map(str, samples_N[:MAX_SAMPLES_SHOWN].tolist()))
    more = f", ... ({len(samples_N)} in all)" if len(samples_N) > MAX_SAMPLES_SHOWN else ""
    return f" on sample{'s' if len(samples_N) > 1 else ''} {first}{more}"
