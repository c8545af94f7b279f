"""Datasets of tensors, such as tables, series, spectrograms and padded texts: a leaf makes the tensors, no more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from bigmodel.datasets.loading.splits import Splits
from bigmodel.datasets.loading.streaming import describe_placement, stream, to_device
from bigmodel.interfaces import Batch, LoaderOptions
from bigmodel.padding import lengths

_MULTIPLE = 8  # trimmed batches have a multiple of this length: few shapes for code that is compiled for each


class IndexableSamples(Protocol):
    """A tensor (N, ...), or an object that makes one when it is indexed by sample numbers, as `SlidingWindows` does."""

    @property
    def device(self) -> torch.device: ...

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices_N: Tensor, /) -> Tensor: ...

    def to(self, device: torch.device, /) -> IndexableSamples: ...


@dataclass(frozen=True)
class TensorDataset:
    """A `Dataset` of tensors: for each split its inputs (N, ...) and targets (N, ...), of any type and shape.

    Without a `val` split, `val_fraction` of the training samples is held out, the same for every seed.

    `properties`, `description` and `spec` (returned by `processor_spec`): see `bigmodel.interfaces.Dataset`.
    `augment`: changes training batches on the device, as a function of (batch, seed, step).
    `trim_padding`: inputs are padded sequences; each batch is cut to the length of its longest one.
    `notes`: lines about what was guessed, dropped or changed.
    `files`: for each split the file of each sample, where each is a file of its own.
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
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def processor_spec(self) -> Mapping[str, Any]:
        return self.spec

    def sample_batch(self, count: int) -> Batch:
        inputs, targets = self.splits["train"]
        indices = torch.arange(count) % len(targets)
        return Batch(inputs[indices], targets[indices])

    def loader(self, options: LoaderOptions) -> TensorLoader:
        return TensorLoader(self, options)


class TensorLoader:
    """The `Loader` of a `TensorDataset`. A split of more than `resident_bytes` is streamed by `workers`."""

    def __init__(self, dataset: TensorDataset, options: LoaderOptions) -> None:
        sizes = {name: len(targets) for name, (_, targets) in dataset.splits.items()}
        targets = dataset.splits["train"][1]
        on_cpu = (lambda: targets.cpu()) if isinstance(targets, Tensor) else None
        self._splits = Splits(sizes, dataset.val_fraction, options, on_cpu)
        self.splits = self._splits.counts
        self.steps_per_epoch = self._splits.steps_per_epoch
        self._device = options.device
        self._seed = options.seed
        self._workers = options.workers
        self._augment = dataset.augment
        self._files = dataset.files
        bytes_of = {name: sum(samples.nbytes for samples in pair) for name, pair in dataset.splits.items()}
        self._resident = {name for name, size in bytes_of.items() if size <= options.resident_bytes}
        self._gather = {
            name: _Gather.of(*pair, options.device if name in self._resident else None, dataset.trim_padding)
            for name, pair in dataset.splits.items()
        }
        self.uses_workers = "train" not in self._resident and options.workers > 0
        self.describe_placement = describe_placement(bytes_of["train"], options.resident_bytes, options.workers)

    def class_counts(self) -> Tensor | None:
        return self._splits.class_counts()

    def train_batches(self, first: int, last: int) -> Iterator[Batch]:
        for step, batch in enumerate(self._batches("train", self._splits.train_indices(first, last)), first):
            yield batch if self._augment is None else self._augment(batch, self._seed, step)

    def eval_batches(self, split: str) -> Iterator[Batch]:
        source, batches = self._splits.eval_indices(split)
        for batch in self._batches(source, batches):
            yield batch._replace(sample_ids=None)

    def eval_files(self, split: str) -> list[str]:
        """Return the files of a split's samples in the order of `eval_batches`; empty where samples are no files."""
        return self._splits.eval_files(split, self._files)

    def _batches(self, source: str, batches: Iterator[Tensor]) -> Iterator[Batch]:
        gather = self._gather[source]
        if source in self._resident:
            return (Batch(*gather(indices), indices) for indices in batches)
        streamed = stream(gather, batches, self._device, self._workers)
        return (Batch(inputs, targets, indices) for indices, (inputs, targets) in streamed)


@dataclass(frozen=True)
class _Gather:
    """Indices (N,) on the CPU in, inputs and targets out, on the device of the samples.

    With `lengths_N`, on the CPU so that no batch waits for the device, inputs are cut to the longest of the batch, and
    so are targets of the same shape: one for each token.
    """

    inputs: IndexableSamples
    targets: IndexableSamples
    lengths_N: Tensor | None

    @classmethod
    def of(
        cls, inputs: IndexableSamples, targets: IndexableSamples, device: torch.device | None, trim_padding: bool
    ) -> _Gather:
        """Put the samples on the device or, where it is None, on the CPU, where samples on demand stay undecoded."""
        lengths_N = lengths(inputs).cpu() if trim_padding and isinstance(inputs, Tensor) else None
        if device is None:
            return cls(_on_cpu(inputs), _on_cpu(targets), lengths_N)
        return cls(inputs.to(device), targets.to(device), lengths_N)

    def __call__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        inputs, targets = self.inputs, self.targets
        if self.lengths_N is not None and isinstance(inputs, Tensor):
            longest = int(self.lengths_N[indices].max())
            length = -(-longest // _MULTIPLE) * _MULTIPLE
            if isinstance(targets, Tensor) and targets.shape == inputs.shape:
                targets = targets[:, :length]
            inputs = inputs[:, :length]
        there = to_device(indices, inputs.device)
        return inputs[there], targets[there]


def _on_cpu(samples: IndexableSamples) -> IndexableSamples:
    return samples if samples.device.type == "cpu" else samples.to(torch.device("cpu"))


def fingerprint_tensors(tensors: Sequence[Tensor]) -> str:
    """Hash the tensors' values, for data without a known hash of its files."""
    state = hashlib.md5(usedforsecurity=False)
    for tensor in tensors:
        state.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        state.update(tensor.contiguous().numpy().tobytes())
    return f"md5:{state.hexdigest()}"
