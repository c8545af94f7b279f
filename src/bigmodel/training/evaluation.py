"""Exact metrics over a split: sums over samples, so no batch size, padding or order changes the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.errors import DataError
from bigmodel.interfaces import Batch, Task
from bigmodel.runtime.device import Device


def evaluate(model: nn.Module, task: Task, batches: Iterable[Batch], device: Device) -> dict[str, Any]:
    """Return the task's metrics over all batches; leaves the model in evaluation mode.

    Raises:
        DataError: there are no batches.
    """
    model.eval()

    def examine(batch: Batch) -> Mapping[str, Tensor]:
        with device.autocast():
            loss, outputs = task.loss(model, batch)
        return task.eval_sums(loss, outputs.float(), batch)

    sums: Mapping[str, Tensor] = {}
    with device.world.without_gradients():
        for added in device.world.in_order(map(examine, device.world.deal(batches))):
            sums = add_sums(sums, added, device.accumulator_dtype)
    if not sums:
        raise DataError("there is nothing to evaluate on: the split has no samples")
    return task.eval_metrics({name: total.cpu() for name, total in sums.items()})


def add_sums(sums: Mapping[str, Tensor], added: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Add named sums in `dtype`; empty `sums` stand for zeros. Scalars on a GPU are added in one kernel."""
    values = [value.to(dtype) for value in added.values()]
    return dict(zip(added, torch._foreach_add(values, [sums[name] for name in added]) if sums else values, strict=True))
