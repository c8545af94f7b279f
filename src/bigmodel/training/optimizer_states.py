"""Count the bytes of an optimizer's states without computing any."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from bigmodel.runtime.distributed import current_world, use_world
from bigmodel.runtime.lazy_compiler import unwrapped_step
from bigmodel.runtime.world import World

_KERNELS = {"fused", "foreach", "capturable"}  # options of torch's optimizers that ask for a real device


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of an optimizer's state, found by one step of a copy on the meta device, which shares nothing
    with other ranks.

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
    world = current_world()
    use_world(World())
    try:
        with torch.no_grad():
            unwrapped_step(ghost)()
    except Exception as error:  # Adafactor reads a norm; by then its state is there
        if not ghost.state:
            raise RuntimeError(f"a step of {type(optimizer).__name__} needs values: {error}") from error
    finally:
        use_world(world)
    return sum(v.nbytes for state in ghost.state.values() for v in state.values() if isinstance(v, Tensor))


def _ghost_parameter(parameter: Tensor) -> Tensor:
    ghost = torch.empty_like(parameter, device="meta", requires_grad=parameter.requires_grad)
    if parameter.requires_grad:
        ghost.grad = torch.empty_like(ghost)
    return ghost
