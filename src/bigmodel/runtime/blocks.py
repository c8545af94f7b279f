"""Find the repeated blocks of a model, such as the layers of a transformer or the residual blocks of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn


def repeated_blocks(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of the outermost blocks: several of one class, with parts, in a list or a sequence."""
    children = [*model.named_children()]
    is_stage = isinstance(model, (nn.ModuleList, nn.Sequential))
    kinds = Counter(type(child) for _, child in children if is_stage and any(True for _ in child.children()))
    for name, child in children:
        if kinds[type(child)] > 1:
            yield prefix + name, child
        else:
            yield from repeated_blocks(child, f"{prefix}{name}.")
