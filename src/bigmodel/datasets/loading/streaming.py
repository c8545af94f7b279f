"""Batches read ahead by worker processes, in order: for data that is too large for the device's memory.

A worker reads whole batches, and the caller decides which samples a batch holds. So any number of workers, and none,
gives the same batches bit for bit.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import multiprocessing.queues
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.reduction import DupFd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.errors import BigmodelError, OutOfMemoryError
from bigmodel.formatting import format_si
from bigmodel.runtime.signals import exit_with_parent

POLL_S = 1.0  # seconds without a batch before the workers are looked at
_SHARED = "/dev/shm"  # where Linux keeps shared memory
_MAX_LOCKS = 8  # besides three for each worker's queue

Read = Callable[[Tensor], tuple[Tensor, ...]]  # indices (N,) to CPU tensors; picklable where workers are not forked
_Item = tuple[Tensor, ...] | BigmodelError


def stream(
    read: Read, batches: Iterable[Tensor], device: torch.device, workers: int
) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield for each batch of indices (N,) the indices and the tensors that `read` returns for them, on the device.

    Workers read some batches ahead, so `batches` is consumed ahead too. Without workers this process reads.

    Raises:
        BigmodelError: `read` raised it, in whatever process.
        OutOfMemoryError: a worker was killed, or shared memory is too small.
    """
    ahead, same = itertools.tee(batches)
    if workers:
        tensors = _read_by_workers(read, ahead, device, workers)
    else:
        tensors = (tuple(to_device(tensor, device) for tensor in read(indices)) for indices in ahead)
    for loaded, indices in zip(tensors, same, strict=True):
        yield indices, loaded


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device; through pinned memory to a GPU, so that this process need not wait for it."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device, non_blocking=True)
    return tensor.pin_memory().to(device, non_blocking=True)


def describe_placement(size: float, resident_bytes: float, workers: int, mapped: bool = False) -> str:
    """Describe for the plan where training samples of `size` bytes lie, and why; `mapped`: their file is mapped into
    memory.
    """
    amount = format_si(size, "B")
    bound = resident_bytes / 1e9
    if size <= resident_bytes:
        where = "mapped from disk" if mapped else "in the device's memory"
        return f"{where} ({amount}, not above resident_gb={bound:g})"
    where = f"streamed by {workers} worker{'s' if workers > 1 else ''}" if workers else "streamed without workers"
    return f"{where}{', mapped from disk' if mapped else ''} ({amount}, above resident_gb={bound:g})"


def _read_by_workers(
    read: Read, batches: Iterable[Tensor], device: torch.device, workers: int
) -> Iterator[tuple[Tensor, ...]]:
    from torch.utils.data import DataLoader  # costs 0.3 s that resident data need not pay

    _check_shared_memory(workers)
    with _allow_any_number_of_workers():
        loader: Iterable[_Item] = DataLoader(
            _ReadInWorker(read),  # type: ignore[arg-type]
            batch_size=None,
            sampler=_IterableSampler(batches),
            num_workers=workers,
            pin_memory=device.type == "cuda",
            timeout=POLL_S,
            generator=torch.Generator(),  # else the loader draws from the global generator
            worker_init_fn=partial(_start_worker, os.getpid()),
        )
    for item in _iterate_while_alive(loader):
        if isinstance(item, BigmodelError):
            raise item
        yield tuple(tensor.to(device, non_blocking=True) for tensor in item)


def _iterate_while_alive(loader: Iterable[_Item]) -> Iterator[_Item]:
    """Yield what the workers hand over, however long they take, while all of them live.

    torch would raise from a signal handler, wherever the program is when a worker dies: even where nothing catches the
    error, and the loop then waits for ever. Here the workers are looked at after POLL_S without a batch.

    Raises:
        OutOfMemoryError: a worker has died; the system kills one where memory runs out.
    """
    with _keep_sigchld_handler(), _allow_any_number_of_workers():
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
            if " in DataLoader worker process" in text:  # an error that `read` raised
                raise
            raise OutOfMemoryError(
                "a data worker was killed, most often because memory ran out; set workers=0 or lower it"
            ) from error
        yield item


def _start_worker(parent: int, _: int) -> None:
    """End this worker with its parent: torch's own watch takes five seconds, or much longer.

    End it, too, where its queue's thread cannot hand over a batch: Python only prints that, and the parent would wait
    for the batch for ever.
    """
    exit_with_parent(parent)
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    try:
        _start_sharing_thread()
    except (RuntimeError, OSError, MemoryError):
        _end_worker()


def _end_worker(*_: object) -> None:
    os._exit(1)


def _start_sharing_thread() -> None:
    """Start the thread that hands over descriptors of shared memory now, while its failure can be noticed."""
    ends = os.pipe()
    try:
        os.close(DupFd(ends[0]).detach())
    finally:
        for end in ends:
            os.close(end)


@contextlib.contextmanager
def _keep_sigchld_handler() -> Iterator[None]:
    """Restore the handler of SIGCHLD, which torch replaces when it starts workers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def _allow_any_number_of_workers() -> Iterator[None]:
    """Silence torch's warning about more workers than cores: workers wait for the disk too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


class _ReadInWorker:
    """`read` as a map-style dataset. An error is returned: a raised one would arrive as a text with its traceback."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def __getitem__(self, indices: NDArray[np.int64]) -> _Item:
        try:
            return tuple(_move_to_shared_memory(tensor) for tensor in self._read(torch.from_numpy(indices)))
        except BigmodelError as error:
            return error


def _move_to_shared_memory(tensor: Tensor) -> Tensor:
    """Move a worker's tensor to shared memory. If the queue did it, a failure would be lost, and the loop would hang.

    Raises:
        OutOfMemoryError: shared memory is too small.
    """
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise _shared_memory_error() from error
    return tensor


def _check_shared_memory(workers: int) -> None:
    """Refuse workers whose queues' locks do not fit in shared memory, a page each: half-made queues fail untidily.

    Raises:
        OutOfMemoryError: they do not fit.
    """
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_SHARED).free < (3 * workers + _MAX_LOCKS) * mmap.PAGESIZE:
            raise _shared_memory_error()


def _shared_memory_error() -> OutOfMemoryError:
    return OutOfMemoryError(f"out of shared memory ({_SHARED}) for the data workers; set workers=0, or give it more")


class _IterableSampler:
    """A sampler for DataLoader that yields batches of indices from any iterable.

    As arrays: a tensor would go to its worker through shared memory, and a failure of that would be lost.
    """

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (indices.numpy() for indices in self._batches)
