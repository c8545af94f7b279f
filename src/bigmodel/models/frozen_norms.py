"""Keep the running statistics of frozen normalization layers."""

from __future__ import annotations

from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["keep_in_eval"]


def keep_in_eval(model: nn.Module) -> list[str]:
    """Pin frozen normalization layers with running statistics to evaluation mode; return their names.

    A layer is frozen if all of its parameters are; one without parameters, if all parameters of its parent are.
    """
    if not any(not parameter.requires_grad for parameter in model.parameters()):
        return []
    kept = []
    for name, module in model.named_modules():
        if not isinstance(module, _NormBase) or module.running_mean is None:
            continue
        own = [*module.parameters()] or [*model.get_submodule(name.rpartition(".")[0]).parameters()]
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
            object.__setattr__(module, "train", MethodType(_ignore_mode, module))  # a copy of the model binds its own
            kept.append(name)
    return kept


def _ignore_mode(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
