"""Exact metrics over a split: sums over samples, so no batch size, padding or order changes the result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.errors import DataError
from bigmodel.interfaces import Batch, Task
from bigmodel.runtime.device import Device


def evaluate(model: nn.Module, task: Task, batches: Iterable[Batch], device: Device) -> dict[str, Any]:
    """The task's report over all batches; the model is left in evaluation mode.

    Raises:
        DataError: there are no batches.
    """
    model.eval()
    sums: Tensor | None = None
    with torch.inference_mode():
        for batch in batches:
            with device.autocast():
                loss, outputs = task.loss(model, batch)
            added = task.eval_sums(loss, outputs.float(), batch).to(device.accumulator_dtype)
            sums = added if sums is None else sums + added
    if sums is None:
        raise DataError("there is nothing to evaluate on: the split has no samples")
    return task.eval_metrics(sums.tolist())
