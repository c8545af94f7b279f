"""The model that a tuned one began as, for losses that compare the two.

Where LoRA's matrices alone are trained, it is the model without them. Else a frozen copy goes along as the submodule
`reference`, so that a checkpoint holds it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bigmodel.models.weights.lora import LORA_TENSORS, base_only, merge_lora

__all__ = [
    "add_reference",
    "has_copied_reference",
    "keep_reference",
    "plain_weights",
    "reference_outputs",
    "reference_weights",
]

_NAME = "reference"


@runtime_checkable
class ComparesWithReference(Protocol):
    """A task whose loss compares the model with what it was at first."""

    compares_with_reference: bool


def keep_reference(model: nn.Module) -> str:
    """Keep what the model is now; return a line about how."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if all(name.endswith(LORA_TENSORS) for name in trained):
        return "reference: the model without init.lora"
    frozen = copy.deepcopy(model).requires_grad_(False)
    model.add_module(_NAME, frozen)
    return "reference: a frozen copy of the model, which each checkpoint holds"


def has_copied_reference(model: nn.Module) -> bool:
    """Return whether a frozen copy goes along with the model."""
    return _NAME in dict(model.named_children())


def add_reference(model: nn.Module, reference: nn.Module) -> None:
    """Give a model the reference of its run, which is no part of the model's own weights."""
    object.__setattr__(model, _NAME, reference.requires_grad_(False))


def reference_outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """Compute the reference's outputs, without dropout; those of the model itself where it is nobody's copy yet."""
    compute = _reference_outputs
    if torch.compiler.is_compiling():  # else `disable` would import the compiler, which takes two seconds
        compute = torch.compiler.disable(compute)  # type: ignore[no-untyped-call]
    return compute(model, inputs)


@torch.no_grad()
def _reference_outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    reference: nn.Module = getattr(model, _NAME, model)
    modes = {module: module.training for module in reference.modules()}
    reference.eval()
    try:
        with base_only(reference):
            return reference(inputs)  # type: ignore[no-any-return]
    finally:
        for module, mode in modes.items():
            module.training = mode


def plain_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's weights with LoRA's matrices in their layers, and without the frozen copy.

    Raises:
        ValueError: LoRA's matrices do not fit.
    """
    return merge_lora({name: tensor for name, tensor in weights.items() if not name.startswith(f"{_NAME}.")})


def reference_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the reference's weights of a checkpoint: those of the frozen copy, else all but LoRA's matrices."""
    prefix = f"{_NAME}."
    copied = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in (copied or weights).items() if not name.endswith(LORA_TENSORS)}
