"""What a model calls, replaced by what gives the same result where many models are computed at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Drop:
    """A call of dropout that has been met: the input's shape and type, and the probability."""

    shape: torch.Size
    dtype: torch.dtype
    probability: float


class Replaced(TorchFunctionMode):
    """Within `torch.vmap`: dropout takes its masks from outside, and a linear layer's gradient lies as its weight does.

    Each job's masks follow from its own seed, so they are drawn before, as its separate run draws them. `met` lists the
    calls of dropout; where no masks are given, they do nothing else.
    """

    def __init__(self, masks: Sequence[Tensor]) -> None:
        super().__init__()
        self.met: list[Drop] = []
        self._masks = masks

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is F.linear:
            return _linear(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if p == 0 or not training:
            return input
        self.met.append(Drop(input.shape, input.dtype, p))
        return input * self._masks[len(self.met) - 1] if self._masks else input


def mask(drop: Drop, device: torch.device) -> Tensor:
    """Zeros and 1/(1 - p), drawn from the global generator as torch's dropout draws them."""
    return F.dropout(torch.ones(drop.shape, dtype=drop.dtype, device=device), drop.probability, True)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `F.linear`. The transposed gradient that torch's own has for many weights at once would be copied into the
    weight's layout, which takes longer than the products.
    """
    if input.ndim != 2:
        return F.linear(input, weight, bias)
    outputs = (weight @ input.mT).mT
    return outputs if bias is None else outputs + bias
