"""Norms that are frozen whole: their running statistics stay too."""

from __future__ import annotations

from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["keep_in_eval"]


def keep_in_eval(model: nn.Module) -> list[str]:
    """Have every norm with running statistics whose parameters are all frozen stay in evaluation mode, whatever mode
    the model is put into. One without parameters is frozen where all of the module that holds it is. Their names.
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
            object.__setattr__(module, "train", MethodType(_stays, module))  # a copy of the model binds its own
            kept.append(name)
    return kept


def _stays(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
