"""Image batches on the device: from memory when the data fits, else streamed through worker processes.

Both ways take the same samples in the same order with the same augmentation, whatever the number of workers: order
follows from (seed, epoch), augmentation from (seed, step) and runs on the device, a batch at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from bigmodel.datasets.images.augmentations import select_images
from bigmodel.datasets.images.dataset import ImageDataset, ImageSource, normalize
from bigmodel.datasets.loading.splits import Splits
from bigmodel.errors import BigmodelError, DataError, OutOfMemoryError
from bigmodel.formatting import format_si
from bigmodel.interfaces import Batch, LoaderOptions

_SHARED = "/dev/shm"  # where Linux keeps what processes share
_PR_SET_PDEATHSIG = 1  # prctl.h
_LOOK_S = 1.0  # without a batch, before the workers are looked at
_Item = tuple[Tensor, Tensor] | BigmodelError


class ImageLoader:
    """The `Loader` of an image dataset. A split that takes more than `resident_bytes` is streamed by `workers`."""

    def __init__(self, dataset: ImageDataset, how: LoaderOptions) -> None:
        self._dataset, self._device, self._seed = dataset, how.device, how.seed
        self._workers, self._resident_bytes = how.workers, how.resident_bytes
        self.memory_format = torch.contiguous_format  # of batches, and of a resident split; set before the first batch
        self._opened: dict[str, _SplitReader] = {}
        self._labels_N: Tensor | None = None
        self._mean, self._std = (
            torch.tensor(values, device=how.device).view(-1, 1, 1) for values in (dataset.mean, dataset.std)
        )
        self._cut = Splits(dataset.sizes, dataset.val_fraction, how, self._targets)
        self.splits, self.steps_per_epoch = self._cut.counts, self._cut.steps_per_epoch

    @property
    def resident(self) -> bool:
        """Whether the training images lie in the device's memory."""
        return self.bytes <= self._resident_bytes

    @property
    def uses_workers(self) -> bool:
        return not self.resident and self._workers > 0

    @property
    def describe_placement(self) -> str:
        size, bound, workers = format_si(self.bytes, "B"), self._resident_bytes / 1e9, self._workers
        if self.resident:
            return f"in the device's memory ({size}, not above resident_gb={bound:g})"
        by = f"streamed by {workers} worker{'s' if workers > 1 else ''}" if workers else "streamed without workers"
        return f"{by} ({size}, above resident_gb={bound:g})"

    @property
    def bytes(self) -> int:
        """Bytes of the training images, validation included."""
        return self._bytes("train")

    def class_counts(self) -> Tensor | None:
        return self._cut.class_counts()

    def train_batches(self, first: int, last: int) -> Iterator[Batch]:
        """Batches of steps first to last - 1, augmented; `samples` are numbers within the data's training images."""
        augment, classes = self._dataset.augment, len(self._dataset.classes)
        asked, chosen_again = itertools.tee(
            self._cut.train_indices(first, last)
        )  # workers are asked some batches ahead
        batches = zip(self._fetch("train").batches(asked), chosen_again, strict=False)
        for step, ((pixels, labels), samples) in enumerate(batches, first):
            changed = augment.augment_pixels(pixels, self._seed, step, step // self.steps_per_epoch, samples)
            inputs = normalize(changed, self._mean, self._std)
            yield Batch(*augment.augment_inputs(inputs, labels, classes, self._seed, step), samples)

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """Every sample of a split once, in order; the first `limit_batches` of them where a limit is set."""
        source, chosen = self._cut.eval_indices(split)
        for pixels, labels in self._fetch(source).batches(chosen):
            yield Batch(normalize(pixels, self._mean, self._std), labels)

    def _targets(self) -> Tensor:
        if self._labels_N is None:
            self._labels_N = self._dataset.sources["train"]().labels_N.cpu()
        return self._labels_N

    def _fetch(self, name: str) -> _SplitReader:
        if name in self._opened:
            return self._opened[name]
        fetch = self._open(name)
        beside = self._bytes(name) + (self.bytes if self.resident else 0)
        if name == "train" or (name == "val" and beside <= self._resident_bytes):  # test is opened once, at the end
            self._opened[name] = fetch
        return fetch

    def _open(self, name: str) -> _SplitReader:
        source = self._dataset.sources[name]()
        if len(source.labels_N) != self._dataset.sizes[name]:
            raise DataError(f"dataset: {name} has {len(source.labels_N)} samples, not {self._dataset.sizes[name]}")
        if self._bytes(name) <= self._resident_bytes:
            return _Resident(source, self._device, self.memory_format)
        return _Streamed(source, self._device, self.memory_format, self._workers)

    def _bytes(self, name: str) -> int:
        channels, height, width = self._dataset.input_shape
        return self._dataset.sizes[name] * channels * height * width


class _Resident:
    """A split as one uint8 tensor on the device."""

    def __init__(self, source: ImageSource, device: torch.device, memory_format: torch.memory_format) -> None:
        self._pixels_NCHW = source.pixels().to(device, memory_format=memory_format)
        self._labels_N = source.labels_N.to(device)
        self._device = device

    def batches(self, chosen: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        pinned = self._device.type == "cuda"  # what is not may be waited for
        for indices in chosen:
            there = (indices.pin_memory() if pinned else indices).to(self._device, non_blocking=True)
            yield select_images(self._pixels_NCHW, there), self._labels_N[there]


class _Streamed:
    """A split decoded by worker processes, a batch each, handed over in order."""

    def __init__(
        self, source: ImageSource, device: torch.device, memory_format: torch.memory_format, workers: int
    ) -> None:
        self._source, self._device, self._format, self._workers = source, device, memory_format, workers

    def batches(self, chosen: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        from torch.utils.data import DataLoader  # costs 0.3 s that resident data need not pay

        if self._workers:
            _check_shared_memory(self._workers)
        with _as_many_as_asked():
            loader: Iterable[_Item] = DataLoader(
                _Decoded(self._source),  # type: ignore[arg-type]
                batch_size=None,
                sampler=_IterableSampler(chosen),
                num_workers=self._workers,
                pin_memory=self._device.type == "cuda",
                timeout=_LOOK_S if self._workers else 0,
                generator=torch.Generator(),  # else the loader draws from the global generator
                worker_init_fn=partial(_exit_with_parent, os.getpid()),
            )
        for decoded in _iterate_while_alive(loader) if self._workers else loader:
            if isinstance(decoded, BigmodelError):
                raise decoded
            pixels, labels = decoded
            there = pixels.to(self._device, non_blocking=True).contiguous(memory_format=self._format)
            yield there, labels.to(self._device, non_blocking=True)


def _iterate_while_alive(loader: Iterable[_Item]) -> Iterator[_Item]:
    """What the workers hand over, however long they take, while all of them live.

    torch would raise from a signal handler, wherever the program is when a worker dies: even where nobody hears it, and
    the loop then waits for ever. Here the workers are looked at whenever none has handed over anything for a while.

    Raises:
        OutOfMemoryError: one has died, which is what the system does where memory runs out.
    """
    with _keep_sigchld_handler(), _as_many_as_asked():
        iterator = iter(loader)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            text = str(error)
            if "DataLoader timed out" in text:
                continue
            if " in DataLoader worker process" in text:  # what a source has raised
                raise
            raise OutOfMemoryError(
                "a data worker was killed, as the system does where memory runs out; set workers=0 or lower it"
            ) from error
        yield item


def _exit_with_parent(parent: int, _: int) -> None:
    """Have Linux end this worker when its parent dies; torch's own watch takes five seconds, or much longer."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it was asked for
        os._exit(1)


@contextlib.contextmanager
def _keep_sigchld_handler() -> Iterator[None]:
    """Leave the handler for children that end as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def _as_many_as_asked() -> Iterator[None]:
    """torch warns where there are more workers than cores; decoding waits for the disk as well."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


class _Decoded:
    """What a worker holds: indices in, pixels and labels out, or the error, which raised would drag its traceback."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor] | BigmodelError:
        try:
            return _shared(self._source.pixels(indices)), _shared(self._source.labels_N[indices])
        except BigmodelError as error:
            return error


def _shared(tensor: Tensor) -> Tensor:
    """The tensor in shared memory, if this is a worker. Left to the queue, a failure would be lost, and the loop hang.

    Raises:
        OutOfMemoryError: there is too little of it.
    """
    from torch.utils.data import get_worker_info

    if get_worker_info() is None:
        return tensor
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise _too_little_shared() from error
    return tensor


def _check_shared_memory(workers: int) -> None:
    """OutOfMemoryError unless the locks of the workers' queues fit, a page each; half-made queues fail untidily."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_SHARED).free < (3 * workers + 8) * mmap.PAGESIZE:
            raise _too_little_shared()


def _too_little_shared() -> OutOfMemoryError:
    return OutOfMemoryError(f"out of shared memory ({_SHARED}) for the data workers; set workers=0, or give it more")


class _IterableSampler:
    """An iterator in a sampler's clothes."""

    def __init__(self, chosen: Iterable[Tensor]) -> None:
        self._chosen = chosen

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._chosen)


_SplitReader = _Resident | _Streamed
