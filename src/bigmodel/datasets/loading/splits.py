"""Assign samples to training, validation and test, and to batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bigmodel.datasets.loading.order import SampleOrder, batch_starts
from bigmodel.errors import ConfigError, DataError
from bigmodel.formatting import format_count
from bigmodel.interfaces import LoaderOptions


class Splits:
    """Splits of `sizes`, by name. Without a `val` split, `val_fraction` of the training samples is held out.

    `targets` returns the targets of all training samples; a balanced order needs it.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        val_fraction: float,
        options: LoaderOptions,
        targets: Callable[[], Tensor] | None = None,
    ) -> None:
        train, val = holdout_split(sizes["train"], 0.0 if "val" in sizes else val_fraction)
        self._indices = {"train": train} | ({"val": val} if len(val) else {})
        self.counts = {name: len(indices) for name, indices in self._indices.items()}
        self.counts |= {name: sizes[name] for name in ("val", "test") if name in sizes}
        self._targets = targets
        classes = self._classes if options.balanced else None
        if classes is not None and targets is None:
            raise ConfigError("sampler: this data has no classes to balance; set sampler=shuffled")
        self._order = SampleOrder(
            len(train), options.batch_size, options.seed, options.limit_batches, options.overfit_batch, classes
        )
        self._batch_size = options.batch_size
        self._limit = options.limit_batches
        self.steps_per_epoch = self._order.steps_per_epoch

    def class_counts(self) -> Tensor | None:
        """Count the training samples of each class, int64 (C,); None if samples do not have one class each."""
        return None if self._targets is None or not _are_classes(self._targets()) else self._classes().bincount()

    def _classes(self) -> Tensor:
        assert self._targets is not None
        targets = self._targets()
        if not _are_classes(targets):
            raise ConfigError("sampler: balanced needs one class for each sample; set sampler=shuffled")
        return targets[self._indices["train"]]

    def train_indices(self, first: int, last: int) -> Iterator[Tensor]:
        """Yield the sample indices (N,) of steps first to last - 1, within the training samples of the data."""
        return (self._indices["train"][self._order.indices(step)] for step in range(first, last))

    def eval_indices(self, split: str) -> tuple[str, Iterator[Tensor]]:
        """Return the name of the source that holds a split, and batches of indices within it.

        Every sample comes once, in order; with `limit_batches`, only the first batches.
        """
        own = split in self._indices
        indices = self._indices[split] if own else torch.arange(self.counts[split])
        starts = batch_starts(len(indices), self._batch_size)[: self._limit]
        ends = [*starts[1:], len(indices)] if self._limit is None else [start + self._batch_size for start in starts]
        return "train" if own else split, (indices[start:end] for start, end in zip(starts, ends, strict=True))

    def eval_files(self, split: str, files: Mapping[str, Sequence[str]]) -> list[str]:
        """Files of a split's samples in the order of `eval_indices`, from those of each source; empty without any."""
        source, batches = self.eval_indices(split)
        of_source = files.get(source, ())
        return [of_source[index] for indices in batches for index in indices.tolist()] if of_source else []


def _are_classes(targets: Tensor) -> bool:
    return targets.ndim == 1 and not targets.is_floating_point()


def holdout_split(size: int, fraction: float) -> tuple[Tensor, Tensor]:
    """Split sample indices into those for training and for validation, sorted; the same for every seed of a run.

    Raises:
        DataError: nothing would be left to train on.
    """
    count = round(size * fraction)
    if count >= size:
        whole = format_count(size, "training sample")
        raise DataError(f"dataset: none of {whole} is left to train on if {fraction:g} of them is held out")
    shuffled = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    return shuffled[count:].sort().values, shuffled[:count].sort().values


def keep_each_class(
    labels: Sequence[Any], kept: Sequence[int], out: Sequence[int]
) -> tuple[list[int], list[int], list[Any]]:
    """Move a sample of each class that has none in `kept` there from `out`; these classes are returned, too."""
    learned = {labels[number] for number in kept}
    back = {labels[number]: number for number in reversed(out) if labels[number] not in learned}
    moved = set(back.values())
    return sorted([*kept, *moved]), [number for number in out if number not in moved], sorted(back)


def stratified(labels: Sequence[str], fraction: float) -> tuple[Tensor, Tensor]:
    """Hold out the same fraction of every class; at least one sample of each stays for training.

    Raises:
        DataError: nothing would be left to train on.
    """
    holdout_split(len(labels), fraction)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tolist()
    members: dict[str, list[int]] = {label: [] for label in sorted(set(labels))}
    for number in shuffled:
        members[labels[number]].append(number)
    shares = {label: len(own) * fraction for label, own in members.items()}
    counts = {label: min(int(share), len(members[label]) - 1) for label, share in shares.items()}
    left = round(len(labels) * fraction) - sum(counts.values())
    for label in sorted(members, key=lambda label: (int(shares[label]) - shares[label], label)):  # largest remainders
        if left > 0 and counts[label] < len(members[label]) - 1 and shares[label] > counts[label]:
            counts[label] += 1
            left -= 1
    out = sorted(number for label, own in members.items() for number in own[: counts[label]])
    chosen = set(out)
    kept = [number for number in range(len(labels)) if number not in chosen]
    return torch.tensor(kept, dtype=torch.int64), torch.tensor(out, dtype=torch.int64)
