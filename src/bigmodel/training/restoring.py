"""Load what a checkpoint holds into a run's optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def load_optimizers(optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Load the optimizers' states, named as `0.12.exp_avg`: of optimizer 0, for its parameter 12.

    Raises:
        ValueError: a name is no such name, or a state does not fit its optimizer.
    """
    for number, optimizer in enumerate(optimizers):
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
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
