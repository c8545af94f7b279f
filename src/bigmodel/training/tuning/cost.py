"""Estimate parameters, compute and memory of a training step without computing anything.

One forward and backward pass on torch's meta device gives shapes only; the counts are exact for what torch can count
(convolutions and matrix products) and leave out the allocator's rounding and the libraries' work space.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bigmodel.interfaces import Batch, Task

LOSS = "(loss)"
_KERNELS = {"fused", "foreach", "capturable"}  # options of torch's optimizers that ask for a real device


@dataclass(frozen=True)
class StepCost:
    """Cost of one update. `flops` counts a multiplication and an addition as two; memory is in bytes.

    `activations_of` divides the activations among the modules that keep them, by dotted name; `LOSS` is outside all.
    """

    num_parameters: int
    num_trainable: int
    flops: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    activations_of: Mapping[str, int]

    @property
    def memory_by_use(self) -> Mapping[str, int]:
        """Bytes of weights, gradients, optimizer state and activations."""
        return {
            "weights": self.weight_bytes,
            "gradients": self.gradient_bytes,
            "optimizer": self.optimizer_bytes,
            "activations": self.activation_bytes,
        }

    @property
    def memory(self) -> int:
        """Bytes in all."""
        return sum(self.memory_by_use.values())


def estimate_step_cost(
    model: nn.Module, task: Task, batch: Batch, optimizers: Sequence[torch.optim.Optimizer], accumulate: int
) -> StepCost:
    """Estimate what one update on `batch`, in `accumulate` micro-batches, costs.

    Raises:
        RuntimeError: the model does something that has no shape without data.
    """
    from torch.utils.flop_counter import FlopCounterMode  # only a plan needs it

    ghost = copy.deepcopy(model).to("meta").train()
    piece = batch.microbatches(accumulate)[0]
    own = {_storage(tensor) for tensor in (*ghost.parameters(), *ghost.buffers())}
    saved: dict[int, tuple[str, int]] = {}
    inside = [LOSS]  # the modules whose forward pass is under way

    def note(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            saved.setdefault(_storage(tensor), (inside[-1], tensor.untyped_storage().nbytes()))
        kept.append(tensor)  # a freed tensor's identity would be used again
        return tensor

    kept: list[Tensor] = []
    for name, module in ghost.named_modules():
        module.register_forward_pre_hook(partial(_enter, inside, name))
        module.register_forward_hook(partial(_leave, inside))
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss, _ = task.loss(ghost, Batch(piece.inputs.to("meta"), piece.targets.to("meta")))
        loss.backward()  # type: ignore[no-untyped-call]
    trained = [p for p in model.parameters() if p.requires_grad]
    of: dict[str, int] = {}
    for name, size in saved.values():
        of[name] = of.get(name, 0) + size
    return StepCost(
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_trainable=sum(p.numel() for p in trained),
        flops=counter.get_total_flops() * len(batch.targets) // len(piece.targets),
        weight_bytes=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        gradient_bytes=sum(p.nbytes for p in trained),
        optimizer_bytes=sum(map(_optimizer_state_bytes, optimizers)),
        activation_bytes=sum(of.values()),
        activations_of=of,
    )


def _enter(inside: list[str], name: str, *_: object) -> None:
    inside.append(name)


def _leave(inside: list[str], *_: object) -> None:
    inside.pop()


def _optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of an optimizer's state, found by one step of a copy on the meta device.

    Raises:
        RuntimeError: its step needs values, not only shapes.
    """
    ghost = object.__new__(type(optimizer))  # no constructor: its arguments are not known
    ghost.__dict__ |= vars(optimizer)
    ghost.state = defaultdict(dict)
    ghost.param_groups = [
        group | dict.fromkeys(group.keys() & _KERNELS, False) | {"params": [*map(_ghost_parameter, group["params"])]}
        for group in optimizer.param_groups
    ]
    try:
        ghost.step()
    except Exception as error:  # Adafactor reads a norm; by then its state is there
        if not ghost.state:
            raise RuntimeError(f"a step of {type(optimizer).__name__} needs values: {error}") from error
    return sum(v.nbytes for state in ghost.state.values() for v in state.values() if isinstance(v, Tensor))


def _ghost_parameter(parameter: Tensor) -> Tensor:
    ghost = torch.empty_like(parameter, device="meta", requires_grad=parameter.requires_grad)
    if parameter.requires_grad:
        ghost.grad = torch.empty_like(ghost)
    return ghost


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
