"""Merge models of one architecture into one: weighted average, slerp or TIES. No training, no data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bigmodel.constraints import NonNegative, Positive, ProperFraction

__all__ = ["Merge", "average", "slerp", "ties"]

Tensors = Mapping[str, Tensor]
_PARALLEL = 0.9995  # cosine above which slerp is a straight line, whose formula does not divide by zero


@dataclass(frozen=True)
class Merge:
    """How to merge the models of `init.from`.

    - `how`: "average" of all weights (model soup, Wortsman et al. 2022), "slerp" between two, or "ties" (Yadav et al.
      2023).
    - `weights`: one factor for each model, divided by their sum; None: equal.
    - `base`: the run or file that all models of "ties" were tuned from.
    - `density`: the share of each model's largest changes that "ties" keeps.
    - `scale`: what "ties" multiplies the merged change by.
    """

    how: Literal["average", "slerp", "ties"] = "average"
    weights: Sequence[NonNegative] | None = None
    base: str | None = None
    density: ProperFraction = 0.2
    scale: Positive = 1.0

    def check(self, count: int) -> None:
        """Raise ValueError where these settings do not go with `count` models."""
        if count < 2:
            raise ValueError(f"merging needs two models or more, got {count}")
        if self.how == "slerp" and count != 2:
            raise ValueError(f"how: slerp goes between two models, got {count}; use average")
        if (self.how == "ties") != (self.base is not None):
            needed = "needs the model that all were tuned from; set base" if self.how == "ties" else "is for how=ties"
            raise ValueError(f"base: {needed}")
        if self.weights is not None and len(self.weights) != count:
            raise ValueError(f"weights: must be {count} numbers, one a model, got {len(self.weights)}")
        if self.weights is not None and not sum(self.weights) > 0:
            raise ValueError("weights: at least one must be above 0")

    def merge(self, models: Mapping[str, Tensors], base: Tensors | None = None) -> dict[str, Tensor]:
        """Return the merged tensors of models by name; `base` holds those of `self.base`.

        Raises:
            ValueError: settings and models do not go together, or the models differ in names or shapes of tensors.
        """
        self.check(len(models))
        check_alike({**models, **({} if base is None else {"base": base})})
        shares = [1.0] * len(models) if self.weights is None else list(self.weights)
        shares = [share / sum(shares) for share in shares]
        tensors = [*models.values()]
        if self.how == "slerp":
            first, second = tensors
            return slerp(first, second, shares[1])
        if base is not None:
            return ties(tensors, base, shares, self.density, self.scale)
        return average(tensors, shares)


def check_alike(models: Mapping[str, Tensors]) -> None:
    """Raise ValueError for the first tensor that not all models have, or have in another shape."""
    (first, expected), *others = models.items()
    for name, tensors in others:
        for key in sorted(expected.keys() ^ tensors.keys()):
            holder, other = (first, name) if key in expected else (name, first)
            raise ValueError(f"{holder} has a tensor {key}, which {other} lacks; only models of one architecture merge")
        for key, tensor in tensors.items():
            if tensor.shape != expected[key].shape:
                shapes = f"{list(expected[key].shape)} in {first} and {list(tensor.shape)} in {name}"
                raise ValueError(f"{key} is {shapes}; only models of one architecture merge")


def average(models: Sequence[Tensors], shares: Sequence[float]) -> dict[str, Tensor]:
    """Return the sum of the models' tensors times their shares; counters are those of the first model."""
    return {name: _mean(_all(models, name), shares) for name in models[0]}


def slerp(first: Tensors, second: Tensors, fraction: float) -> dict[str, Tensor]:
    """Return the point at `fraction` of the way from the first model to the second, each tensor along its arc."""
    return {name: _arc(tensor, second[name], fraction) for name, tensor in first.items()}


def ties(
    models: Sequence[Tensors], base: Tensors, shares: Sequence[float], density: float, scale: float
) -> dict[str, Tensor]:
    """Return the base plus the models' changes: each trimmed to its largest, and only those of the winning sign.

    The winning sign of a weight is that of the sum of the changes times their shares.
    """
    thresholds = [_threshold(model, base, density) for model in models]
    merged = {}
    for name, origin in base.items():
        if not origin.is_floating_point():
            merged[name] = models[0][name]
            continue
        changes = torch.stack([tensor.double() - origin.double() for tensor in _all(models, name)])
        at_least = torch.tensor(thresholds, dtype=torch.float64).view(-1, *[1] * origin.ndim)
        changes = changes.where(changes.abs() >= at_least, 0.0)
        weights = torch.tensor(shares, dtype=torch.float64).view_as(at_least)
        agrees = (changes.sign() == (changes * weights).sum(0).sign()) & (changes != 0)
        total = (weights * agrees).sum(0)
        change = (changes * weights * agrees).sum(0) / total.where(total > 0, 1.0)
        merged[name] = (origin.double() + scale * change).to(origin.dtype)
    return merged


def _all(models: Sequence[Tensors], name: str) -> list[Tensor]:
    return [model[name] for model in models]


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        return first
    return sum((t.double() * share for t, share in zip(tensors, shares, strict=True)), torch.zeros(())).to(first.dtype)


def _arc(first: Tensor, second: Tensor, fraction: float) -> Tensor:
    if not first.is_floating_point():
        return first
    a, b = first.double(), second.double()
    norms = float(a.norm() * b.norm())
    cosine = float((a * b).sum()) / norms if norms else 1.0
    if abs(cosine) > _PARALLEL:
        return torch.lerp(a, b, fraction).to(first.dtype)
    angle = math.acos(cosine)
    near, far = math.sin((1 - fraction) * angle), math.sin(fraction * angle)
    return ((near * a + far * b) / math.sin(angle)).to(first.dtype)


def _threshold(model: Tensors, base: Tensors, density: float) -> float:
    """Return the size of the smallest change among the largest share `density` of all changes of a model."""
    sizes = torch.cat(
        [(t.double() - base[n].double()).abs().flatten() for n, t in model.items() if t.is_floating_point()]
    )
    kept = max(1, math.ceil(density * len(sizes)))
    return max(float(sizes.kthvalue(len(sizes) - kept + 1).values), torch.finfo(torch.float64).tiny)
