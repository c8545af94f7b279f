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
    """Mark the optimizer's methods with themselves, where torch looks for the mark that it would import to make."""
    for name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:
            method.__dict__.setdefault("__dynamo_disable", method)


def set_deterministic_algorithms(only: bool) -> None:
    """`torch.use_deterministic_algorithms` without the word it leaves for the compiler, which it imports to do so."""
    torch._C._set_deterministic_algorithms(only, warn_only=False)


def unwrapped_step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """An optimizer's step without the wrappers that import the compiler, for torch's and our own; else its step.

    The wrappers do no arithmetic: they switch gradients off, which the caller does, and run hooks, which nobody set.
    """
    kind = type(optimizer)
    if not kind.__module__.startswith(("torch.optim.", "bigmodel.")):
        return optimizer.step
    step = inspect.unwrap(kind.step)
    return lambda: step(optimizer)
