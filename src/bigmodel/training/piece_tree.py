"""Add up the pieces of a batch in an order that no number of ranks changes: a balanced binary tree over the pieces.

Ranks of equal, consecutive shares hold whole subtrees, which `World.sum_step` adds as the rest of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigmodel.interfaces import Batch
from bigmodel.training.evaluation import add_sums


@dataclass(frozen=True)
class _Node:
    """Gradients and sums over `size` consecutive pieces. It owns its gradients."""

    size: int
    gradients: Mapping[nn.Parameter, Tensor]
    sums: Mapping[str, Tensor]


def backward_as_tree(
    pieces: Iterable[tuple[int, Batch]],
    backward: Callable[[int, Batch], tuple[Tensor, Mapping[str, Tensor]]],
    parameters: Iterable[nn.Parameter],
    dtype: torch.dtype,
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Compute the gradients of all pieces into the parameters, by `backward` for each; return as it does.

    At most log2(pieces) gradients are kept beside that of the newest piece. Sums are added in `dtype`.
    """
    nodes: list[_Node] = []  # of falling sizes
    for index, piece in pieces:
        loss, sums = backward(index, piece)
        gradients = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
        for parameter in gradients:
            parameter.grad = None
        node = _Node(1, gradients, sums)
        while nodes and nodes[-1].size == node.size:
            node = _merge(nodes.pop(), node, dtype)
        nodes.append(node)
    node = nodes.pop()
    while nodes:  # a batch of fewer pieces than asked for: the missing ones are zeros, and are left out
        node = _merge(nodes.pop(), node, dtype)
    for parameter, gradient in node.gradients.items():
        parameter.grad = gradient
    return loss, node.sums


def _merge(left: _Node, right: _Node, dtype: torch.dtype) -> _Node:
    common = [parameter for parameter in left.gradients if parameter in right.gradients]
    torch._foreach_add_([left.gradients[one] for one in common], [right.gradients[one] for one in common])
    sums = add_sums(left.sums, right.sums, dtype)
    return _Node(left.size + right.size, {**right.gradients, **left.gradients}, sums)
