"""Exact metrics over a split: sums over samples, so no batch size, padding or order changes the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from bigmodel.errors import DataError
from bigmodel.interfaces import Batch, Task
from bigmodel.runtime.device import Device
from bigmodel.training.running_sums import add_sums


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
