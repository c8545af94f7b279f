"""Step torch's optimizers on the rows that a rank has of each weight, to the bits of a step on whole weights."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.runtime.distributed import current_world
from bigmodel.runtime.lazy_compiler import unwrapped_step
from bigmodel.runtime.world import own_rows

_VECTOR = 32  # bytes that torch's fused kernels take at once on a CPU; what remains of a tensor they round otherwise


def step_of(optimizer: torch.optim.Optimizer, is_divided: bool) -> Callable[[], object]:
    """Return an optimizer's step; with `is_divided` weights, on this rank's rows, unless it sees to that itself."""
    if is_divided and type(optimizer).__module__.startswith("torch.optim."):
        return partial(step_rows, optimizer)
    return unwrapped_step(optimizer)


def step_rows(optimizer: torch.optim.Optimizer) -> None:
    """Take an optimizer's step, each element of which depends on no other, on this rank's rows as plain tensors."""
    ghost = object.__new__(type(optimizer))  # no constructor: its arguments are not known
    ghost.__dict__ |= vars(optimizer)
    ghost.state = defaultdict(dict)
    ghost.param_groups = []
    pieces: list[_Piece] = []
    for group in optimizer.param_groups:
        own = [piece for p in group["params"] if p.grad is not None for piece in _pieces(p, optimizer.state[p])]
        ghost.param_groups.append(group | {"params": [piece.tensor for piece in own]})
        pieces += own
    for piece in pieces:
        ghost.state[piece.tensor] = piece.states()
    inspect.unwrap(type(optimizer).step)(ghost)
    for piece in pieces:
        piece.write_back(ghost.state[piece.tensor])


def _pieces(parameter: Tensor, state: dict[str, Any]) -> Iterator[_Piece]:
    """Yield this rank's elements of a weight in two pieces at most: those of whole vectors of the kernel, the rest."""
    count, before = own_rows(parameter).numel(), 0
    if parameter.device.type == "cpu":
        begin = (current_world().first_row(parameter) or 0) * (parameter.numel() // max(1, len(parameter)))
        width = _VECTOR // parameter.element_size()
        before = min(count, max(0, parameter.numel() // width * width - begin))
        if before:
            yield _Piece(parameter, state, 0, before, padding=-before % width)
    if before < count:
        yield _Piece(parameter, state, before, count, is_first=before == 0)


class _Piece:
    """Elements of a weight as a tensor of their own, a view unless it is padded to fill the vectors of a kernel."""

    def __init__(
        self, parameter: Tensor, state: dict[str, Any], begin: int, end: int, padding: int = 0, is_first: bool = True
    ) -> None:
        self._parameter = parameter
        self._state = state
        self._slice = slice(begin, end)
        self._padding = padding
        self._is_first = is_first
        assert parameter.grad is not None
        self.tensor = self._of(parameter)
        self.tensor.grad = self._of(parameter.grad)

    def states(self) -> dict[str, Any]:
        """Return the weight's states for these elements; those of the whole, as its step, belong to the first piece."""
        return {
            key: self._of(value) if self._is_divided(value) else value if self._is_first else value.clone()
            for key, value in self._state.items()
        }

    def write_back(self, states: dict[str, Any]) -> None:
        """Write the elements back where they are not views, and the states that are new."""
        self._copy(self.tensor, self._parameter)
        for key, value in states.items():
            if value.shape != self.tensor.shape:
                self._state.setdefault(key, value)
                continue
            if self._state.get(key) is None:
                self._state[key] = torch.zeros_like(self._parameter)
            self._copy(value, self._state[key])

    def _copy(self, piece: Tensor, whole: Tensor) -> None:
        view = self._view(whole)
        if piece.data_ptr() != view.data_ptr():
            view.copy_(piece[: len(view)])

    def _is_divided(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.shape == self._parameter.shape

    def _view(self, tensor: Tensor) -> Tensor:
        return own_rows(tensor).view(-1)[self._slice]

    def _of(self, tensor: Tensor) -> Tensor:
        view = self._view(tensor)
        return F.pad(view, (0, self._padding)) if self._padding else view
