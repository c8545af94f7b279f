"""Keep torch's compiler out of runs that do not compile: importing it costs a second or two before the first step.

torch imports it from an optimizer's constructor, to mark methods as not to be compiled, and from its `step`, to tell
the compiler where a graph ends. Neither means anything in a run without a compiler. Should torch change these places,
the worst that happens is the import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch


def avoid_dynamo_import() -> None:
    """Pre-set `__dynamo_disable` on optimizer methods, so that torch does not import its compiler to set it."""
    for name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:
            method.__dict__.setdefault("__dynamo_disable", method)


def set_deterministic_algorithms(only: bool) -> None:
    """Call `torch.use_deterministic_algorithms` without its setting for the compiler, which it would import."""
    torch._C._set_deterministic_algorithms(only, warn_only=False)


def unwrapped_step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Return an optimizer's step without the wrappers that import the compiler, if it is torch's or our own.

    The wrappers do no arithmetic: they switch gradients off, which the caller does, and run hooks, which nobody set.
    """
    kind = type(optimizer)
    if not kind.__module__.startswith(("torch.optim.", "bigmodel.")):
        return optimizer.step
    step = inspect.unwrap(kind.step)
    return lambda: step(optimizer)
