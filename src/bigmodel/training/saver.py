"""Save checkpoints while training goes on: copy the state to host memory, and let a thread commit the copy.

The loop pays for the copy alone. One save is pending at a time; the next one waits for it, so that a slow disk slows
training down instead of filling memory. The copy's memory is reused: new pages would cost more than the copy itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from bigmodel.errors import StorageError
from bigmodel.events import Saved
from bigmodel.runs import checkpoint
from bigmodel.runs.checkpoint_parts import PartialSaves
from bigmodel.runs.checkpoint_path import checkpoint_path
from bigmodel.training.state import Tensors, TrainState

_LOOK_S = 1.0
MAX_COPY_BYTES = 256e6  # bytes; on a CPU the copy takes from the memory that training needs


class AsyncCheckpointer:
    """Asynchronous saver of a run's checkpoints under `root`.

    `about` is what inference needs besides the weights; `metrics` returns the run's records so far. With `parts` this
    is a rank's saver, which saves its part of a divided model.
    """

    def __init__(
        self,
        root: Path,
        about: dict[str, Any],
        keep: int,
        metrics: Callable[[], Mapping[str, Any]] | None = None,
        parts: PartialSaves | None = None,
    ) -> None:
        self._root = root
        self._about = about
        self._keep = keep
        self._metrics = metrics
        self._parts = parts
        self.restored: Mapping[str, Any] = {}  # the state that `restore` has found
        self._pending: futures.Future[Saved] | None = None
        self._done: list[Saved] = []
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def save(self, state: TrainState, passing: bool = False) -> None:
        """Start to commit the state as it is now, after any earlier save has ended.

        `passing` marks a save that was not due and is made because the run stops. Tensors on a CPU that are too large
        to copy are committed before this returns, from where they lie.

        Raises:
            OSError: the save before this one failed.
        """
        self._collect()
        tensors, scalars = state.state_tensors(), state.state_scalars() | self._about
        if self._parts is not None:
            tensors = self._parts.own(tensors)
        if self._metrics is not None:
            scalars["metrics"] = self._metrics()
        small = _bytes_on_cpu(tensors) <= MAX_COPY_BYTES
        kept = self._copy_to_host(tensors) if small else tensors
        self._writer = futures.ThreadPoolExecutor(1, "save")  # one per save, so none idles when a worker forks
        self._place = state.device.world.place
        self._thread = 0
        self._pending = self._writer.submit(self._commit, state.step, kept, scalars, passing)
        if not small:
            self._wait()

    def completed(self, wait: bool = False) -> list[Saved]:
        """Return the saves committed since the last call; with `wait`, first wait for the pending one.

        Raises:
            OSError: a save failed; earlier checkpoints are intact.
        """
        if wait or (self._pending is not None and self._pending.done()):
            self._collect()
        done, self._done = self._done, []
        return done

    def _collect(self) -> None:
        """Take the result of the pending save, if there is one."""
        if self._pending is not None:
            self._wait()
            pending, self._pending = self._pending, None
            self._done.append(pending.result())

    def _wait(self) -> None:
        """Wait for the pending save; whoever watches this rank sees it live while the save moves, however long."""
        assert self._pending is not None
        seen: object = None
        while self._place.watch is not None and not futures.wait([self._pending], _LOOK_S).done:
            waits = self._parts is not None and self._parts.waits
            moved = (waits, _bytes_moved(self._thread))
            if moved != seen:
                self._place.sign(waits)
                seen = moved
        self._writer.shutdown()

    def restore(self, state: TrainState) -> list[str]:
        """Load the newest checkpoint that verifies into the state; return a warning for each that was passed over.

        Raises:
            StorageError: there are checkpoints, and none verifies.
        """
        checkpoint.remove_stale_temporaries(self._root.parent)
        checkpoint.remove_stale_temporaries(self._root)
        found, warnings = checkpoint.load_newest(self._root, whole=self._parts is None)
        if found is not None:
            state.load_state(found.tensors, found.state)
            self.restored = found.state
            # a kill may have left this undone
            checkpoint.update_pointers_and_prune(self._root, state.step, state.best, self._keep)
        elif warnings:
            raise StorageError(*warnings)
        return warnings

    def load_best(self, state: TrainState) -> checkpoint.Checkpoint:
        """Load the checkpoint with the best evaluation. Raises StorageError if it does not verify."""
        return checkpoint.load(checkpoint_path(self._root, int(state.best["step"])), whole=self._parts is None)

    def _copy_to_host(self, tensors: Tensors) -> Tensors:
        copies: Tensors = {}
        for file, group in tensors.items():
            copies[file] = {name: self._buffer(file, name, tensor) for name, tensor in group.items()}
            for name, tensor in group.items():
                copies[file][name].copy_(tensor, non_blocking=tensor.is_cuda)  # into pinned memory, waited for below
        for device in {tensor.device for group in tensors.values() for tensor in group.values() if tensor.is_cuda}:
            torch.cuda.synchronize(device)
        return copies

    def _buffer(self, file: str, name: str, like: Tensor) -> Tensor:
        buffer = self._buffers.get((file, name))
        if buffer is None or buffer.shape != like.shape or buffer.dtype != like.dtype:
            buffer = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
            self._buffers[file, name] = buffer
        return buffer

    def _commit(self, step: int, tensors: Tensors, state: Mapping[str, Any], passing: bool) -> Saved:
        began, self._thread = perf_counter(), threading.get_native_id()
        commit = checkpoint.commit if self._parts is None else self._parts.commit
        path = commit(self._root, step, tensors, state, self._keep, passing)
        return Saved(step, str(path), perf_counter() - began)


def _bytes_moved(thread: int) -> str:
    """Return how much a thread of this process has read and written; empty where the system does not say."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/self/task/{thread}/io").read_text(encoding="ascii")
    return ""


def _bytes_on_cpu(tensors: Tensors) -> int:
    every = (tensor for group in tensors.values() for tensor in group.values())
    return sum(tensor.nbytes for tensor in every if tensor.device.type == "cpu")
