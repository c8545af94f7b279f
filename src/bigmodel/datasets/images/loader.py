"""Image batches on the device: from its memory when the data fits, else streamed through worker processes.

Both ways take the same samples in the same order with the same augmentation, whatever the number of workers: order
follows from (seed, epoch), augmentation from (seed, step) and runs on the device, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.augmentations import select_images
from bigmodel.datasets.images.source import ImageSource, normalize
from bigmodel.datasets.loading.splits import Splits
from bigmodel.datasets.loading.streaming import describe_placement, stream, to_device
from bigmodel.errors import DataError
from bigmodel.interfaces import Batch, LoaderOptions

_Batches = Iterator[tuple[Tensor, tuple[Tensor, ...]]]  # indices, and (pixels, labels)


class _Images(Protocol):
    """What the loader needs of an `ImageDataset`, which knows the loader."""

    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def input_shape(self) -> Sequence[int]: ...
    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...
    @property
    def val_fraction(self) -> float: ...
    @property
    def augment(self) -> ImageAugment: ...
    @property
    def sources(self) -> Mapping[str, Callable[[], ImageSource]]: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def files(self) -> Mapping[str, Sequence[str]]: ...


class ImageLoader:
    """The `Loader` of an image dataset. A split of more than `resident_bytes` is streamed by `workers`."""

    def __init__(self, dataset: _Images, options: LoaderOptions) -> None:
        self._dataset = dataset
        self._device = options.device
        self._seed = options.seed
        self._workers = options.workers
        self._resident_bytes = options.resident_bytes
        self._memory_format = torch.contiguous_format
        self._readers: dict[str, _SplitReader] = {}
        self._labels_N: Tensor | None = None
        self._mean, self._std = (
            torch.tensor(values, device=options.device).view(-1, 1, 1) for values in (dataset.mean, dataset.std)
        )
        self._splits = Splits(dataset.sizes, dataset.val_fraction, options, self._targets)
        self.splits = self._splits.counts
        self.steps_per_epoch = self._splits.steps_per_epoch

    @property
    def memory_format(self) -> torch.memory_format:
        """torch's memory format of the inputs: contiguous, or channels last. The values are the same."""
        return self._memory_format

    @memory_format.setter
    def memory_format(self, memory_format: torch.memory_format) -> None:
        if memory_format != self._memory_format:
            self._readers.clear()  # a resident split lies in the old format
        self._memory_format = memory_format

    @property
    def is_resident(self) -> bool:
        """Whether the training images lie in the device's memory."""
        return self.bytes <= self._resident_bytes

    @property
    def uses_workers(self) -> bool:
        return not self.is_resident and self._workers > 0

    @property
    def describe_placement(self) -> str:
        return describe_placement(self.bytes, self._resident_bytes, self._workers)

    @property
    def bytes(self) -> int:
        """Bytes of the training images, validation included."""
        return self._bytes("train")

    def class_counts(self) -> Tensor | None:
        return self._splits.class_counts()

    def train_batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the augmented batches of steps first to last - 1; `sample_ids` index the data's training images."""
        augment = self._dataset.augment
        num_classes = len(self._dataset.classes)
        batches = self._reader("train").batches(self._splits.train_indices(first, last))
        for step, (samples, (pixels, labels)) in enumerate(batches, first):
            changed = augment.augment_pixels(pixels, self._seed, step, step // self.steps_per_epoch, samples)
            inputs = normalize(changed, self._mean, self._std)
            yield Batch(*augment.augment_inputs(inputs, labels, num_classes, self._seed, step), samples)

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """Every sample of a split once, in order; the first `limit_batches` of them where a limit is set."""
        source, batches = self._splits.eval_indices(split)
        for _, (pixels, labels) in self._reader(source).batches(batches):
            yield Batch(normalize(pixels, self._mean, self._std), labels)

    def eval_files(self, split: str) -> list[str]:
        """Return the files of a split's pictures in the order of `eval_batches`; empty where they are no files."""
        return self._splits.eval_files(split, self._dataset.files)

    def _targets(self) -> Tensor:
        if self._labels_N is None:
            self._labels_N = self._dataset.sources["train"]().labels_N.cpu()
        return self._labels_N

    def _reader(self, name: str) -> _SplitReader:
        if name in self._readers:
            return self._readers[name]
        reader = self._open(name)
        total = self._bytes(name) + (self.bytes if self.is_resident else 0)
        if name == "train" or (name == "val" and total <= self._resident_bytes):  # test is opened once, at the end
            self._readers[name] = reader
        return reader

    def _open(self, name: str) -> _SplitReader:
        source = self._dataset.sources[name]()
        if len(source.labels_N) != self._dataset.sizes[name]:
            raise DataError(f"dataset: {name} has {len(source.labels_N)} samples, not {self._dataset.sizes[name]}")
        if self._bytes(name) <= self._resident_bytes:
            return _Resident(source, self._device, self._memory_format)
        return _Streamed(source, self._device, self._memory_format, self._workers)

    def _bytes(self, name: str) -> int:
        channels, height, width = self._dataset.input_shape
        return self._dataset.sizes[name] * channels * height * width


class _Resident:
    """A split as one uint8 tensor on the device."""

    def __init__(self, source: ImageSource, device: torch.device, memory_format: torch.memory_format) -> None:
        self._pixels_NCHW = source.pixels().to(device, memory_format=memory_format)
        self._labels_N = source.labels_N.to(device)
        self._device = device

    def batches(self, batches: Iterable[Tensor]) -> _Batches:
        for indices in batches:
            there = to_device(indices, self._device)
            yield indices, (select_images(self._pixels_NCHW, there), self._labels_N[there])


@dataclass(frozen=True)
class _Streamed:
    """A split that is decoded a batch at a time, by worker processes if there are any."""

    source: ImageSource
    device: torch.device
    memory_format: torch.memory_format
    workers: int

    def batches(self, batches: Iterable[Tensor]) -> _Batches:
        for indices, (pixels, labels) in stream(_ReadImages(self.source), batches, self.device, self.workers):
            yield indices, (pixels.contiguous(memory_format=self.memory_format), labels)


@dataclass(frozen=True)
class _ReadImages:
    """Indices in, uint8 pixels (N, C, H, W) and labels out."""

    source: ImageSource

    def __call__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.source.pixels(indices), self.source.labels_N[indices]


_SplitReader = _Resident | _Streamed
