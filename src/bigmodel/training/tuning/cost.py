"""Estimate parameters, compute and memory of a training step without computing anything.

One forward and backward pass of fake tensors gives shapes only; the counts are exact for what torch can count
(convolutions, matrix products, attention) and leave out the allocator's rounding and the libraries' work space. Fake
tensors take the kernels of their device; on the meta device attention would be another one, which keeps far more.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bigmodel.interfaces import Batch, Task
from bigmodel.runtime.activation_checkpointing import is_checkpointed, without_checkpoints
from bigmodel.runtime.device import Device
from bigmodel.training.optimizer_states import optimizer_state_bytes
from bigmodel.training.tuning.saved_tensors import LOSS, SavedTensors

__all__ = ["LOSS", "StepCost", "estimate_step_cost"]


@dataclass(frozen=True)
class StepCost:
    """Cost of one update. `flops` counts a multiplication and an addition as two; memory is in bytes.

    `activations_of` divides the activations among the modules that keep them, by dotted name; `LOSS` is outside all.
    `cast_bytes` are weights in autocast's dtype, kept as activations are. `checkpointed_bytes` is what both would be if
    blocks computed their activations twice; where they do, it is `activation_bytes`.
    """

    num_parameters: int
    num_trainable: int
    flops: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    cast_bytes: int
    checkpointed_bytes: int
    activations_of: Mapping[str, int]

    @property
    def memory_by_use(self) -> Mapping[str, int]:
        """Bytes of weights, gradients, optimizer state and activations, and of weights in another dtype if any."""
        return {
            "weights": self.weight_bytes,
            "gradients": self.gradient_bytes,
            "optimizer": self.optimizer_bytes,
            "activations": self.activation_bytes,
            **({"weights in fewer bits": self.cast_bytes} if self.cast_bytes else {}),
        }

    @property
    def memory(self) -> int:
        """Bytes in all."""
        return sum(self.memory_by_use.values())


def estimate_step_cost(
    model: nn.Module,
    task: Task,
    batch: Batch,
    optimizers: Sequence[torch.optim.Optimizer],
    accumulate: int,
    device: Device | None = None,
) -> StepCost:
    """Estimate what one update on `batch`, in `accumulate` micro-batches, costs, in the precision of `device`.

    Raises:
        RuntimeError: the model does something that has no shape without data.
    """
    piece = batch.microbatches(accumulate)[0]
    try:
        saved, flops = _trace(model, task, piece, device, fake=True)
    except RuntimeError:  # an operation that has shapes on the meta device alone, as CTC's loss
        saved, flops = _trace(model, task, piece, device, fake=False)
    trained = [p for p in model.parameters() if p.requires_grad]
    twice = is_checkpointed(model)
    return StepCost(
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_trainable=sum(p.numel() for p in trained),
        flops=flops * len(batch.targets) // len(piece.targets),
        weight_bytes=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        gradient_bytes=sum(p.nbytes for p in trained),
        optimizer_bytes=sum(map(optimizer_state_bytes, optimizers)),
        activation_bytes=saved.checkpointed_bytes if twice else saved.num_bytes,
        cast_bytes=0 if twice else saved.cast_bytes,
        checkpointed_bytes=saved.checkpointed_bytes,
        activations_of=saved.by_module,
    )


def _trace(model: nn.Module, task: Task, piece: Batch, device: Device | None, fake: bool) -> tuple[SavedTensors, int]:
    """Compute loss and gradients of a micro-batch in shapes alone; return what was saved, and the FLOP."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # with what follows, a second that only a plan needs
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    forward: Callable[..., int] = sdpa_flop_count
    backward: Callable[..., int] = sdpa_backward_flop_count
    aten = torch.ops.aten
    formulas = {  # of the attention of CPUs, which torch's table lacks
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: forward(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda y, q, k, v, *_, **__: backward(y, q, k, v),
    }
    on_gpu = device is not None and device.torch_device.type == "cuda"
    kind = torch.device("cuda" if on_gpu else "cpu") if fake else torch.device("meta")
    ghost = without_checkpoints(copy.deepcopy(model).to("meta").train())
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode if fake else contextlib.nullcontext():
        ghost = ghost.to_empty(device=kind)
        if len(piece.targets) == 1:  # ranks take the statistics over all their pieces, and one sample alone has none
            _freeze_statistics(ghost)
        tensors = (piece.inputs, piece.targets)
        inputs, targets = ((mode.from_tensor(tensor) if fake else tensor).to(kind) for tensor in tensors)
        counter = FlopCounterMode(display=False, custom_mapping=formulas)
        with counter:
            with SavedTensors(ghost).recording() as saved, device.autocast() if device else contextlib.nullcontext():
                loss, _ = task.loss(ghost, Batch(inputs, targets))
            loss.backward()  # type: ignore[no-untyped-call]
    return saved, counter.get_total_flops()


def _freeze_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
