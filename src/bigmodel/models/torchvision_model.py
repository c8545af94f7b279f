"""Build any torchvision classifier by name for the data's channels, size and classes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.constraints import PositiveInt
from bigmodel.errors import suggest
from bigmodel.models.weights.foreign_weights import load_weights
from bigmodel.runtime.exhaustion import describe_exhaustion

__all__ = ["torchvision_model"]


def torchvision_model(
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    num_classes: PositiveInt,
    name: str,
    pretrained: str | None = None,
) -> nn.Module:
    """Build a classifier from (N, C, H, W) to logits (N, classes), without auxiliary heads: its output is one tensor.

    Raises:
        ValueError: there is no such model, or it does not take this input shape or these weights.
    """
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if name.lower() not in names:
        raise ValueError(f"name: torchvision has no classifier '{name}'; {suggest(name.lower(), names)}")
    arguments: dict[str, Any] = {}
    if name.lower() in ("inception_v3", "googlenet"):
        arguments = {"aux_logits": False, "init_weights": True}
    elif name.lower().startswith("vit_"):
        if input_shape[1] != input_shape[2]:
            raise ValueError(f"name: {name} takes square images, not {input_shape[1]}x{input_shape[2]}")
        arguments = {"image_size": input_shape[1]}
    elif name.lower() == "maxvit_t":
        arguments = {"input_size": tuple(input_shape[1:])}

    def build() -> nn.Module:
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **arguments)
        if input_shape[0] != 3:
            replace_first_convolution(model, input_shape[0])
        return model

    return build_classifier(build, name, input_shape, num_classes, pretrained)


def build_classifier(
    build: Callable[[], nn.Module],
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    pretrained: str | None,
) -> nn.Module:
    """Build a model, try it on one black image, and load the weights of a local file if one is given.

    Raises:
        ValueError: the model does not take such images or return logits (N, classes), or the weights do not fit.
    """
    shape = "x".join(map(str, input_shape))
    try:
        model = build()
        model.eval()
        with torch.no_grad():
            outputs = model(torch.zeros(1, *input_shape))
        model.train()
    except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError) as error:
        if describe_exhaustion(error):
            raise
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"name: {name} does not take images of {shape}: {line}") from error
    if not isinstance(outputs, Tensor) or outputs.shape != (1, num_classes):
        raise ValueError(
            f"name: {name} is not a classifier: its output is not (N, {num_classes}) for images of {shape}"
        )
    if pretrained is not None:
        print(f"{name}: {load_weights(model, pretrained)}", file=sys.stderr)
    return model


def replace_first_convolution(model: nn.Module, channels: int) -> None:
    """Replace the first convolution, in place, by one of `channels` input channels and new weights.

    Raises:
        ValueError: the model does not begin with a 2d convolution.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            parent, _, leaf = path.rpartition(".")
            new = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                module.dilation,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            setattr(model.get_submodule(parent), leaf, new)
            return
    raise ValueError(f"has no 2d convolution to replace by one of {channels} channels")
