"""Add up the pieces of a batch in an order that no number of ranks changes: a balanced binary tree over the pieces.

Ranks of equal, consecutive shares hold whole subtrees, which `World.sum_step` adds as the rest of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bigmodel.interfaces import Batch
from bigmodel.training.running_sums import add_sums


@dataclass(frozen=True)
class _Node:
    """Sums over `size` consecutive pieces: of gradients by parameter, of statistics by buffer, and by name."""

    size: int
    tensors: Mapping[Tensor, Tensor]
    sums: Mapping[str, Tensor]


def backward_as_tree(
    pieces: Iterable[tuple[int, Batch]],
    backward: Callable[[int, Batch], tuple[Tensor, Mapping[str, Tensor]]],
    parameters: Iterable[Tensor],
    statistics: Iterable[Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Compute the gradients of all pieces into the parameters, by `backward` for each; return as it does.

    At most log2(pieces) gradients are kept beside that of the newest piece. Sums are added in `dtype`. Each piece finds
    the `statistics` of batch norms as they were before the first; at the end they hold the sum over all pieces.
    """
    before = [(buffer, buffer.clone()) for buffer in statistics]
    nodes: list[_Node] = []  # of falling sizes
    for index, piece in pieces:
        for buffer, value in before:
            buffer.copy_(value)
        loss, sums = backward(index, piece)
        _push(nodes, _Node(1, _take(parameters, statistics), sums), dtype)
    node = nodes.pop()
    while nodes:  # a batch of fewer pieces than asked for: the missing ones are zeros, and are left out
        node = _merge(nodes.pop(), node, dtype)
    for one, total in node.tensors.items():
        if one.requires_grad:
            one.grad = total
        else:
            one.copy_(total)
    return loss, node.sums


def _take(parameters: Iterable[Tensor], statistics: Iterable[Tensor]) -> Mapping[Tensor, Tensor]:
    """Take the gradients out of the parameters, and copy the statistics."""
    found: dict[Tensor, Tensor] = {one: one.grad for one in parameters if one.grad is not None}
    for parameter in found:
        parameter.grad = None
    return found | {buffer: buffer.clone() for buffer in statistics if buffer.is_floating_point()}


def _push(nodes: list[_Node], node: _Node, dtype: torch.dtype) -> None:
    """Append the node of a piece, merged with its neighbor of the same size, and so on."""
    while nodes and nodes[-1].size == node.size:
        node = _merge(nodes.pop(), node, dtype)
    nodes.append(node)


def _merge(left: _Node, right: _Node, dtype: torch.dtype) -> _Node:
    common = [one for one in left.tensors if one in right.tensors]
    torch._foreach_add_([left.tensors[one] for one in common], [right.tensors[one] for one in common])
    sums = add_sums(left.sums, right.sums, dtype)
    return _Node(left.size + right.size, {**right.tensors, **left.tensors}, sums)
