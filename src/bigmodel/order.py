"""Which samples each step takes: a pure function of (size, batch size, seed, step).

Every sample comes exactly once an epoch. The last batch of an epoch may be smaller; a single left-over sample joins the
batch before it, because batch normalisation has no variance of one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bigmodel.seeds import derive


@dataclass
class Order:
    """The order of `size` samples. `limit` keeps the first batches of each epoch; `only_first` repeats batch 0."""

    size: int
    batch_size: int
    seed: int
    limit: int | None = None
    only_first: bool = False
    _cached: tuple[int, Tensor] = field(default=(-1, torch.empty(0)), repr=False)

    @property
    def steps_per_epoch(self) -> int:
        batches = len(bounds(self.size, self.batch_size))
        return batches if self.limit is None else min(batches, self.limit)

    def indices(self, step: int) -> Tensor:
        """Sample numbers (N,), int64 on the CPU, of one step counted from the start of the run."""
        if self.only_first:
            step = 0
        epoch, batch = divmod(step, self.steps_per_epoch)
        if self._cached[0] != epoch:
            generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
            self._cached = (epoch, torch.randperm(self.size, generator=generator))
        start = batch * self.batch_size
        last = batch == len(bounds(self.size, self.batch_size)) - 1
        return self._cached[1][start:] if last else self._cached[1][start : start + self.batch_size]


def bounds(size: int, batch_size: int) -> range:
    """Where each batch of an epoch starts."""
    starts = range(0, size, batch_size)
    return starts[:-1] if len(starts) > 1 and size - starts[-1] == 1 else starts
