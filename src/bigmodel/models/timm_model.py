"""Build any timm classifier by name for the data's channels, size and classes. Nothing is downloaded."""

from __future__ import annotations

import difflib

from torch import nn

from bigmodel.constraints import PositiveInt
from bigmodel.models.torchvision_model import build_classifier

__all__ = ["timm_model"]


def timm_model(
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    num_classes: PositiveInt,
    name: str,
    pretrained: str | None = None,
) -> nn.Module:
    """Build a classifier from (N, C, H, W) to logits (N, classes).

    Raises:
        ValueError: timm is missing or has no such model, or the model does not take this input shape or these weights.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError("timm is not installed; pip install 'bigmodel-train[timm]'") from error
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(
            f"name: timm has no model '{name}'; "
            + (f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists them")
        )

    def build() -> nn.Module:
        arguments = {"pretrained": False, "num_classes": num_classes, "in_chans": input_shape[0]}
        try:
            model: nn.Module = timm.create_model(name, img_size=tuple(input_shape[1:]), **arguments)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            model = timm.create_model(name, **arguments)  # takes any size
        return model

    return build_classifier(build, name, input_shape, num_classes, pretrained)
