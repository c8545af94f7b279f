"""Skip updates with non-finite gradients without synchronizing the host with the GPU.

On a CPU the loss and the norm are read before the step, which costs nothing. On a GPU reading waits for all queued
work, so the device itself skips that step and all later ones, by the flag that gradient scalers use (`found_inf`), and
the host learns of it some steps later, through an asynchronous copy.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.runtime.device import Device

MAX_LAG_STEPS = 4  # how far the host may run ahead of the last update that it knows to be finite
MAX_SAMPLES_SHOWN = 5  # sample indices in the message


@dataclass(frozen=True)
class StepRecord:
    """Record of one step: its number, rate and samples, and its loss and gradient norm as one tensor (2,)."""

    step: int
    lr: float
    samples: Tensor | None
    loss_norm: Tensor

    def message(self) -> str:
        """Describe what is not finite, and what to do."""
        loss, norm = self.loss_norm.tolist()
        return (
            f"diverged at step {self.step}{_list_samples(self.samples)}: loss {loss:g}, gradient norm {norm:g}; "
            f"the update was skipped; lower optim.lr (now {self.lr:g}) or set clip_norm=1"
        )


class NonFiniteGuard:
    """Guard that checks the gradient norm before each optimizer step.

    It reports a non-finite update at once, or up to four steps later on a GPU; that update and all later ones are not
    applied.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], device: Device) -> None:
        self.last_loss: float | None = None  # of the newest update that the host knows of
        self._found_nonfinite: Tensor | None = None
        self._queued: deque[tuple[StepRecord, torch.cuda.Event | None]] = deque()
        if device.is_async and all(map(_supports_found_inf, optimizers)):
            self._found_nonfinite = torch.zeros((), device=device.torch_device)
            for optimizer in optimizers:
                optimizer.found_inf = self._found_nonfinite  # type: ignore[attr-defined]

    def observe(self, step: int, lr: float, samples: Tensor | None, loss: Tensor, norm: Tensor) -> StepRecord | None:
        """Record the update that is about to be made; return this or an earlier one if it was not finite."""
        loss_norm = torch.stack([loss.detach().float(), norm.float()])
        if self._found_nonfinite is None:
            return self._read(StepRecord(step, lr, samples, loss_norm))
        self._found_nonfinite.logical_or_(norm.isfinite().logical_not())
        copied = loss_norm.to("cpu", non_blocking=True)  # into pinned memory, that of an earlier step
        arrived = torch.cuda.Event() if loss_norm.is_cuda else None  # type: ignore[no-untyped-call]
        if arrived is not None:
            arrived.record()
        self._queued.append((StepRecord(step, lr, samples, copied), arrived))
        return self._poll(MAX_LAG_STEPS)

    def drain(self) -> StepRecord | None:
        """Wait for all recorded updates; return the first that was not finite, if there is one."""
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
            if self._read(update) is not None:
                return update
        return None

    def _read(self, update: StepRecord) -> StepRecord | None:
        """Read an update's loss and norm, and return it if its gradient is not finite. Waits, if these are on a GPU."""
        self.last_loss, norm = update.loss_norm.tolist()
        return None if math.isfinite(norm) else update


def _supports_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the optimizer's step obeys `found_inf`: torch's fused ones and our own do."""
    return hasattr(optimizer, "found_inf") or bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _list_samples(samples_N: Tensor | None) -> str:
    if samples_N is None:
        return ""
    first = ", ".join(map(str, samples_N[:MAX_SAMPLES_SHOWN].tolist()))
    more = f", ... ({len(samples_N)} in all)" if len(samples_N) > MAX_SAMPLES_SHOWN else ""
    return f" (sample{'s' if len(samples_N) > 1 else ''} {first}{more})"
