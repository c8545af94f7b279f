"""Order of training samples: a pure function of (size, batch size, seed, step).

Every sample comes exactly once an epoch. In a balanced order every class comes equally often: samples of a small class
several times, those of a large class in turns. The last batch of an epoch may be smaller; a single left-over sample
joins the batch before it, because batch normalization has no variance of one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bigmodel.seeds import derive


@dataclass
class SampleOrder:
    """Order of `size` samples. `limit` keeps the first batches of each epoch; `only_first` repeats batch 0.

    With `classes`, which returns the class index (N,) of each sample, the order is balanced.
    """

    size: int
    batch_size: int
    seed: int
    limit: int | None = None
    only_first: bool = False
    classes: Callable[[], Tensor] | None = None
    _cached: tuple[int, Tensor] = field(default=(-1, torch.empty(0)), repr=False)

    @property
    def steps_per_epoch(self) -> int:
        batches = len(batch_starts(self.size, self.batch_size))
        return batches if self.limit is None else min(batches, self.limit)

    def indices(self, step: int) -> Tensor:
        """Return the sample indices (N,), int64 on the CPU, of a step counted from the start of the run."""
        if self.only_first:
            step = 0
        epoch, batch = divmod(step, self.steps_per_epoch)
        if self._cached[0] != epoch:
            generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
            if self.classes is None:
                order = torch.randperm(self.size, generator=generator)
            else:
                order = balanced(self.classes(), generator)
            self._cached = (epoch, order)
        start = batch * self.batch_size
        last = batch == len(batch_starts(self.size, self.batch_size)) - 1
        return self._cached[1][start:] if last else self._cached[1][start : start + self.batch_size]


def balanced(classes_N: Tensor, generator: torch.Generator) -> Tensor:
    """Draw N indices of N samples in random order; the counts of two classes differ by one at most.

    Each class contributes random rounds of its samples, each sample once a round.
    """
    present = torch.unique(classes_N)
    quotas = torch.full((len(present),), len(classes_N) // len(present))
    more = torch.randperm(len(present), generator=generator)[: len(classes_N) % len(present)]
    quotas[more] += 1
    taken = []
    for label, quota in zip(present, quotas.tolist(), strict=True):
        members = (classes_N == label).nonzero()[:, 0]
        rounds = [torch.randperm(len(members), generator=generator) for _ in range(-(-quota // len(members)))]
        taken += [members[torch.cat(rounds)[:quota]]] if rounds else []
    order = torch.cat(taken)
    return order[torch.randperm(len(order), generator=generator)]


def batch_starts(size: int, batch_size: int) -> range:
    """Return the index of each batch's first sample in an epoch."""
    starts = range(0, size, batch_size)
    return starts[:-1] if len(starts) > 1 and size - starts[-1] == 1 else starts
