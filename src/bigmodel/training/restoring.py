"""Load what a checkpoint holds into a model and its optimizers: whole, or the rows that this rank has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bigmodel.runtime.world import World


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], world: World) -> None:
    """Load a model's weights and buffers. Raises RuntimeError where names or shapes are others."""
    model.load_state_dict(world.placed(tensors, model.state_dict()))


def load_optimizers(optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor], world: World) -> None:
    """Load the optimizers' states, named as `0.12.exp_avg`: of optimizer 0, for its parameter 12.

    Raises:
        ValueError: a name is no such name, or a state does not fit its optimizer.
    """
    parameters = {
        f"{number}.{index}": parameter
        for number, optimizer in enumerate(optimizers)
        for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"])
    }
    owners = {name: parameters.get(name.rpartition(".")[0]) for name in tensors}
    placed = world.placed(tensors, {name: owner for name, owner in owners.items() if owner is not None})
    for number, optimizer in enumerate(optimizers):
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in placed.items():
            owner, index, key = name.split(".", 2)
            if int(owner) == number:
                states.setdefault(int(index), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": states, "param_groups": groups})
        _match_memory_formats(optimizer)


def _match_memory_formats(optimizer: torch.optim.Optimizer) -> None:
    """Copy optimizer state into its parameter's memory format; fused optimizers index both as flat memory."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
