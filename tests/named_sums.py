"""Named sums of several batches, added up as an evaluation does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from bigmodel.training.running_sums import add_sums


def added(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    for part in parts:
        sums = add_sums(sums, part, torch.float64)
    return sums
