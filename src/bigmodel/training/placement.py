"""Put a model where it is trained: whole on each rank, or divided among the ranks where it does not fit."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence

import torch
from torch import nn

from bigmodel.errors import ConfigError
from bigmodel.formatting import format_si
from bigmodel.models.weights.lora import base_weights
from bigmodel.models.weights.reference import has_copied_reference
from bigmodel.runtime.device import Device
from bigmodel.training.optimizer_states import optimizer_state_bytes

_BY_ELEMENT = (torch.optim.SGD, torch.optim.Adam)  # AdamW is an Adam


def place_model(
    model: nn.Module, keeps_average: bool, device: Device, build: Callable[[nn.Module], Sequence[torch.optim.Optimizer]]
) -> nn.Module | None:
    """Move the model to the device's ranks, in place, whole or divided; have the device say which and why.

    Returns the average of the weights, if it is kept and divided too.

    Raises:
        ConfigError: the model is to be divided and cannot be.
    """
    if not device.may_divide:
        return None
    if device.shard == "auto":
        _choose_parts(device, _state_bytes(model, keeps_average, build(model)))
    if any(parameter.is_meta for parameter in model.parameters()):  # a plan by shapes alone
        return None
    if device.parts == 1 or device.world.size == 1:  # of one, a plan: made by one process for all
        model.to(device.torch_device)
        return None
    if has_copied_reference(model):
        raise ConfigError(
            "device.shard: the frozen copy that the task compares with cannot be divided; tune with init.lora.rank=8, "
            "which needs no copy, or set device.shard=none"
        )
    from bigmodel.runtime.sharding import shard_models  # imports much that only such a run needs

    average = copy.deepcopy(model) if keeps_average else None  # a divided model cannot be copied
    models = [model] if average is None else [model, average]
    with base_weights(models):  # FSDP looks at the attributes that its parameters have
        device.world = shard_models(models, device.world.place, device.torch_device, device.parts)
    return average


def describe_division(device: Device, optimizers: Sequence[torch.optim.Optimizer], pieces: int | None) -> list[str]:
    """Return a line about a divided model, none about a whole one.

    Raises:
        ConfigError: the model is divided, and an optimizer may need whole weights, or there are `pieces`.
    """
    if device.parts == 1:
        return []
    if pieces:
        raise ConfigError(
            "pieces: a divided model adds up gradients in the order of the ranks, not as a tree; set pieces=null or "
            "device.shard=none"
        )
    for optimizer in optimizers:
        if not getattr(optimizer, "updates_parts", isinstance(optimizer, _BY_ELEMENT)):
            raise ConfigError(
                f"optim: {type(optimizer).__name__} as it is used here may need whole weights, and each rank holds a "
                "part; use sgd, adam, adamw, muon, or device.shard=none"
            )
    return [f"device.shard={device.shard}: {device.sharding}"]


def _choose_parts(device: Device, needed: int) -> None:
    """Divide the model if what it needs does not fit, on any rank."""
    room = _memory(device)
    compared = f"{format_si(needed, 'B')} of weights, gradients and optimizer states"
    if device.world.any(needed > room):
        device.divide(device.count)
        device.sharding += f": {compared} do not fit the {format_si(room, 'B')} of a rank"
    else:
        device.parts = 1
        device.sharding = f"each holds the whole model: {compared} fit the {format_si(room, 'B')} of a rank"


def _state_bytes(model: nn.Module, keeps_average: bool, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Return the bytes of weights, gradients and optimizer states, and of an average."""
    weights = sum(int(tensor.nbytes) for tensor in (*model.parameters(), *model.buffers()))
    gradients = sum(int(parameter.nbytes) for parameter in model.parameters() if parameter.requires_grad)
    return weights * (2 if keeps_average else 1) + gradients + sum(map(_optimizer_bytes, optimizers))


def _optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of an optimizer's states; two for each weight, as Adam has, where its step needs values."""
    try:
        return optimizer_state_bytes(optimizer)
    except RuntimeError:
        return 2 * sum(int(p.nbytes) for group in optimizer.param_groups for p in group["params"])


def _memory(device: Device) -> int:
    """Return the bytes of memory that a rank has: as the config says, a GPU's, or its share of the machine's."""
    if device.memory_bytes is not None:
        return int(device.memory_bytes)
    here = device.world.place.local_size or device.count
    memory = int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE"))
    return memory // here
