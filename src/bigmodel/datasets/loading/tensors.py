"""Any data that fits in memory, as tables, series, spectrograms, padded texts: a leaf makes the tensors, no more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bigmodel.datasets.loading.splits import Splits
from bigmodel.formatting import format_si
from bigmodel.interfaces import Batch, LoaderOptions
from bigmodel.padding import lengths

_MULTIPLE = 8  # of which trimmed batches are long: few shapes for what compiles each


class IndexableSamples(Protocol):
    """A tensor (N, ...), or what makes one when it is indexed by sample numbers, as `windows.SlidingWindows` does."""

    @property
    def device(self) -> torch.device: ...

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, numbers_N: Tensor, /) -> Tensor: ...

    def to(self, device: torch.device, /) -> IndexableSamples: ...


@dataclass(frozen=True)
class TensorDataset:
    """A `Dataset` of tensors: for each split its inputs (N, ...) and targets (N, ...), of any type and shape.

    Without a `val` split, `val_fraction` of the training samples is held out, the same for every seed. `properties`,
    `summary` and `spec`, which is what `processor_spec` says, are the leaf's own words: see
    `bigmodel.interfaces.Dataset`. `augment` changes training batches on the device, as a function of (batch, seed,
    step). If `trimmed`, inputs are padded sequences, and each batch is as long as its longest asks for.
    `notes` are lines about what was guessed, dropped or changed.
    """

    splits: Mapping[str, tuple[IndexableSamples, IndexableSamples]]
    properties: Mapping[str, Any]
    description: str
    spec: Mapping[str, Any]
    fingerprint: str
    val_fraction: float = 0.0
    augment: Callable[[Batch, int, int], Batch] | None = None
    trim_padding: bool = False
    notes: Sequence[str] = ()

    def processor_spec(self) -> Mapping[str, Any]:
        return self.spec

    def sample_batch(self, count: int) -> Batch:
        inputs, targets = self.splits["train"]
        chosen = torch.arange(count) % len(targets)
        return Batch(inputs[chosen], targets[chosen])

    def loader(self, how: LoaderOptions) -> TensorLoader:
        return TensorLoader(self, how)


class TensorLoader:
    """The `Loader` of a `TensorDataset`: on the device, or in the computer's memory where it takes too much there."""

    uses_workers = False

    def __init__(self, dataset: TensorDataset, how: LoaderOptions) -> None:
        sizes, targets = {name: len(x) for name, (_, x) in dataset.splits.items()}, dataset.splits["train"][1]
        held = (lambda: targets.cpu()) if isinstance(targets, Tensor) else None
        self._cut = Splits(sizes, dataset.val_fraction, how, held)
        self.splits, self.steps_per_epoch = self._cut.counts, self._cut.steps_per_epoch
        self._device, self._seed, self._augment = how.device, how.seed, dataset.augment
        splits = dataset.splits.items() if dataset.trim_padding else ()  # on the CPU: no batch waits for the device
        self._lengths = {name: lengths(x) for name, (x, _) in splits if isinstance(x, Tensor)}
        size = sum(tensor.nbytes for tensor in dataset.splits["train"])
        place = how.device if size <= how.resident_bytes else torch.device("cpu")
        self._splits = {name: [x.to(place) for x in pair] for name, pair in dataset.splits.items()}
        where = "the device's" if place == how.device else "the computer's"
        self.describe_placement = f"in {where} memory ({format_si(size, 'B')})"

    def class_counts(self) -> Tensor | None:
        return self._cut.class_counts()

    def train_batches(self, first: int, last: int) -> Iterator[Batch]:
        for step, samples in enumerate(self._cut.train_indices(first, last), first):
            batch = self._batch("train", samples)
            yield batch if self._augment is None else self._augment(batch, self._seed, step)

    def eval_batches(self, split: str) -> Iterator[Batch]:
        source, chosen = self._cut.eval_indices(split)
        for samples in chosen:
            yield self._batch(source, samples)._replace(sample_ids=None)

    def _batch(self, source: str, samples: Tensor) -> Batch:
        inputs, targets = self._splits[source]
        there = samples.to(inputs.device)
        if self._lengths and isinstance(inputs, Tensor):
            longest = int(self._lengths[source][samples].max())
            inputs = inputs[:, : -(-longest // _MULTIPLE) * _MULTIPLE]
        return Batch(inputs[there].to(self._device), targets[there].to(self._device), samples)


def fingerprint_tensors(tensors: Sequence[Tensor]) -> str:
    """A hash of the tensors' values, for data of which no file's hash is known."""
    state = hashlib.md5(usedforsecurity=False)
    for tensor in tensors:
        state.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        state.update(tensor.contiguous().numpy().tobytes())
    return f"md5:{state.hexdigest()}"
