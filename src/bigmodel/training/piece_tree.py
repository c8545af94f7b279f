"""Add up the pieces of a batch in an order that no number of ranks changes: a balanced binary tree over the pieces.

Ranks of equal, consecutive shares hold whole subtrees, which `World.sum_step` adds as the rest of the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigmodel.training.evaluation import add_sums


@dataclass(frozen=True)
class _Node:
    """Gradients and sums over `size` consecutive pieces. It owns its gradients."""

    size: int
    gradients: Mapping[nn.Parameter, Tensor]
    sums: Mapping[str, Tensor]


class PieceTree:
    """Gradients and sums over the pieces so far: at most log2(pieces) gradients beside that of the newest piece."""

    def __init__(self, parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
        self._parameters, self._dtype = parameters, dtype
        self._nodes: list[_Node] = []  # of falling sizes

    def add(self, sums: Mapping[str, Tensor]) -> None:
        """Take the newest piece's gradients out of the parameters, and its sums."""
        gradients = {parameter: parameter.grad for parameter in self._parameters if parameter.grad is not None}
        for parameter in gradients:
            parameter.grad = None
        node = _Node(1, gradients, sums)
        while self._nodes and self._nodes[-1].size == node.size:
            node = self._merge(self._nodes.pop(), node)
        self._nodes.append(node)

    def total(self) -> Mapping[str, Tensor]:
        """Put the gradients of all pieces into the parameters, and return their sums."""
        node = self._nodes.pop()
        while self._nodes:  # a batch of fewer pieces than asked for: the missing ones are zeros, and are left out
            node = self._merge(self._nodes.pop(), node)
        for parameter, gradient in node.gradients.items():
            parameter.grad = gradient
        return node.sums

    def _merge(self, left: _Node, right: _Node) -> _Node:
        common = [parameter for parameter in left.gradients if parameter in right.gradients]
        torch._foreach_add_([left.gradients[one] for one in common], [right.gradients[one] for one in common])
        sums = add_sums(left.sums, right.sums, self._dtype)
        return _Node(left.size + right.size, {**right.gradients, **left.gradients}, sums)
