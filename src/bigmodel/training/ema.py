"""Exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import nn

from bigmodel.runtime.world import own_rows


def update_ema(average: nn.Module, model: nn.Module, decay: float, infinite: Set[str]) -> None:
    """Move `average` towards `model`, in place.

    Integer tensors are copied, and those named in `infinite`, such as a mask of -inf: their average would be NaN.
    """
    live, averages = ({name: own_rows(t) for name, t in m.state_dict().items()} for m in (model, average))
    moving = [name for name, value in averages.items() if value.is_floating_point() and name not in infinite]
    for name in averages.keys() - set(moving):
        averages[name].copy_(live[name])
    torch._foreach_lerp_([averages[name] for name in moving], [live[name] for name in moving], 1 - decay)


def warmed_up(decay: float, step: int) -> float:
    """Return the decay of the update number `step`, from 0: (1 + step) / (10 + step) until that exceeds `decay`.

    The average spans at most the last ninth of the updates so far, so that the random start is soon forgotten; as
    TensorFlow's `ExponentialMovingAverage` with `num_updates`. A function of the step alone: nothing of it is saved.
    """
    return min(decay, (1 + step) / (10 + step))
