"""What a run would take: parameters, arithmetic and memory per step, found without computing anything.

One forward and backward pass on torch's meta device tells shapes only; the counts are exact for what torch knows to
count (convolutions and matrix products) and leave out the allocator's rounding and the libraries' work space.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bigmodel.interfaces import Batch, Task

LOSS = "(loss)"


@dataclass(frozen=True)
class StepCost:
    """Per update. `flops` counts a multiplication and an addition as two; memory is in bytes.

    `activations_of` divides the activations among the modules, by dotted name, that keep them; `LOSS` is outside all.
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
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes


def estimate_step_cost(
    model: nn.Module, task: Task, batch: Batch, optimizers: Sequence[torch.optim.Optimizer], accumulate: int
) -> StepCost:
    """What one update on `batch`, in `accumulate` pieces, costs.

    Raises:
        NotImplementedError: the model does something that has no shape without data.
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
        optimizer_bytes=sum(
            _optimizer_state_bytes(group) for optimizer in optimizers for group in optimizer.param_groups
        ),
        activation_bytes=sum(of.values()),
        activations_of=of,
    )


def _enter(inside: list[str], name: str, *_: object) -> None:
    inside.append(name)


def _leave(inside: list[str], *_: object) -> None:
    inside.pop()


def _optimizer_state_bytes(group: dict[str, object]) -> int:
    """Adam and its kin keep two numbers a weight, momentum one, plain descent none."""
    copies = 2 if "betas" in group else 1 if group.get("momentum") else 0
    parameters = group["params"]
    assert isinstance(parameters, list)
    return copies * sum(int(p.nbytes) for p in parameters)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
