"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174) by block: less memory, a second forward pass.

In training a block keeps its inputs alone, and computes the rest again in the backward pass, from the same random
numbers, so that the gradients have the same bits. The block's class is replaced, so that names, copies and evaluation
stay those of the module. The first such step imports torch's compiler, some two seconds, though it compiles nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from bigmodel.runtime.blocks import repeated_blocks


def checkpoint_blocks(model: nn.Module) -> int:
    """Have the repeated blocks of the model compute their activations twice, in place; return how many there are."""
    blocks = [block for _, block in repeated_blocks(model)]
    for block in blocks:
        kind: Any = type(block)
        block.__class__ = _checkpointed(kind)
    return len(blocks)


def is_checkpointed(model: nn.Module) -> bool:
    """Whether blocks of the model compute their activations twice."""
    return any(hasattr(type(module), "kept_whole") for module in model.modules())


def without_checkpoints(model: nn.Module) -> nn.Module:
    """Have the blocks of the model keep their activations again, in place; return it."""
    for module in model.modules():
        if (kind := getattr(type(module), "kept_whole", None)) is not None:
            module.__class__ = kind
    return model


@cache
def _checkpointed(kind: Any) -> Any:
    """Return a subclass of a block's class that computes its activations twice in training."""

    def forward(self: nn.Module, *arguments: Any, **named: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return kind.forward(self, *arguments, **named)
        norms = [module for module in self.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
        contexts: dict[str, Any] = {}
        if norms:
            contexts["context_fn"] = lambda: (contextlib.nullcontext(), _unchanged(norms))
        return checkpoint(partial(kind.forward, self), *arguments, use_reentrant=False, **contexts, **named)

    members: dict[str, Any] = {"forward": forward, "kept_whole": kind, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), members)


@contextlib.contextmanager
def _unchanged(norms: list[_BatchNorm]) -> Iterator[None]:
    """Put the running statistics back that a second forward pass changes."""
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.data.copy_(value)  # unseen by autograd, which has saved them, though training does not read them
