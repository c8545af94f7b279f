"""The ranks of a run: processes that share every batch and add up what each computes.

Sums are added in the order of the ranks, so that N ranks give the bits of one process with `accumulate=N`. Only this
file and `sharding` touch torch.distributed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch._C._distributed_c10d import FileStore, PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from bigmodel.errors import AlreadyReported, PeerLost
from bigmodel.interfaces import Batch
from bigmodel.runtime.launch import PEER_LOST, Place
from bigmodel.runtime.world import World

_T = TypeVar("_T")
_BUCKET = 1 << 24  # elements of the gradients that are added up at once; each bucket is copied
_FAILURES, _WORDS = "failures", "words"  # keys of the ranks' store: how many have failed, and what the first says


class Ranks(World):
    """Several processes that train one model. See `World`."""

    def piece(self, batch: Batch) -> Batch:
        pieces = batch.microbatches(self.size)
        self.is_idle = self.rank >= len(pieces)
        # an idle rank must compute something, or the others would wait for its part of the sums
        return Batch(batch.inputs[:1], batch.targets[:1]) if self.is_idle else pieces[self.rank]

    def counted(self, sums: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: torch.zeros_like(value) for name, value in sums.items()} if self.is_idle else sums

    def deal(self, items: Iterable[_T]) -> Iterable[_T]:
        self.is_idle = False
        return itertools.islice(items, self.rank, None, self.size)

    def sum_step(self, gradients: Sequence[Tensor], sums: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.is_idle:
            torch._foreach_zero_([*gradients])  # zeros already, unless its loss was not finite
        for bucket in _buckets(gradients):
            flat = self._add_up(torch.cat([gradient.reshape(-1) for gradient in bucket]))
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(to) for part, to in zip(parts, bucket, strict=True)])
        added = self._add_up(torch.stack([*sums.values()]))
        return dict(zip(sums, added.unbind(), strict=True))

    def sum_named(self, sums: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        kinds: list[Any] = [None] * self.size
        own = {name: (value.shape, value.dtype, value.device.type) for name, value in sums.items()}
        with peers():
            dist.all_gather_object(kinds, own)
        known: Mapping[str, tuple[Any, Any, str]] = next((kind for kind in kinds if kind), {})
        device = torch.device("cuda", torch.cuda.current_device()) if _on_gpu(known) else torch.device("cpu")
        full = {
            name: sums[name] if sums else torch.zeros(shape, dtype=dtype, device=device)
            for name, (shape, dtype, _) in known.items()
        }
        return {name: self._add_up(value.reshape(-1)).view(value.shape) for name, value in full.items()}

    def any(self, flag: bool) -> bool:
        flags = torch.tensor(int(flag))
        with peers():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        with peers(), torch.no_grad():
            for tensor in tensors:
                sent = tensor.contiguous()
                dist.broadcast(sent, 0)
                if sent is not tensor:
                    tensor.copy_(sent)

    def broadcast_text(self, text: str) -> str:
        sent = [text]
        with peers():
            dist.broadcast_object_list(sent, 0)
        return sent[0]

    def gather(self, values: Tensor) -> Tensor:
        gathered: Tensor = _Gather.apply(values, self)
        return gathered

    def _add_up(self, flat: Tensor) -> Tensor:
        """Return the sum ((0 + 1) + 2) + ... over the ranks, whatever the order of the collective's own sums is.

        Each rank adds up its share of the elements, so as much is sent as by a ring.
        """
        with peers():
            if self.size == 2:  # a sum of two has one order
                flat = flat.clone()
                dist.all_reduce(flat)
                return flat
            width = -(-flat.numel() // self.size)
            padded = F.pad(flat, (0, width * self.size - flat.numel()))
            shares = torch.empty_like(padded)
            dist.all_to_all_single(shares, padded)
            total, *others = shares.view(self.size, width).unbind()
            for other in others:
                total = total + other
            dist.all_gather([*padded.view(self.size, width)], total)
            return padded[: flat.numel()]


class _Gather(torch.autograd.Function):
    """`World.gather`: each rank's loss depends on all rows, so the gradients of a row are added up over the ranks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, world: Ranks) -> Tensor:
        ctx.world = world
        rows = [torch.empty_like(values) for _ in range(world.size)]
        with peers():
            dist.all_gather(rows, values.contiguous())
        return torch.stack(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        added = ctx.world._add_up(gradient.reshape(-1)).view_as(gradient)
        return added[ctx.world.rank], None


_current = World()
_store: Store | None = None


def current_world() -> World:
    """Return the ranks that this process has joined; alone, a world of one."""
    return _current


def use_world(world: World) -> None:
    """Have the ranks that this process has joined do what they share as `world` does."""
    global _current
    _current = world


@contextlib.contextmanager
def joined(place: Place, use_gpus: bool) -> Iterator[World]:
    """Join the other ranks, and leave them at the end. Of several failures only the first is raised with its words.

    Raises:
        AlreadyReported: another rank reports the failure, or the process that started the ranks does.
        PeerLost: another rank has ended, and nobody has said why.
    """
    global _current, _store
    _store = store = _meet(place)
    try:
        if use_gpus:
            torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if use_gpus else "gloo"
        with peers():
            dist.init_process_group(backend, store=PrefixStore("ranks", store), rank=place.rank, world_size=place.size)
        _current = Ranks(place)
        yield _current
    except AlreadyReported:
        raise
    except PeerLost as error:
        if place.is_watched or not _is_first(store, str(error)):
            raise AlreadyReported(PEER_LOST) from error
        raise
    except Exception as error:
        if not _is_first(store, str(error)):
            raise AlreadyReported(getattr(error, "code", 1)) from error
        raise
    finally:
        _current, _store = (
            World(),
            None,
        )  # the group itself ends with the process: to take it apart, ranks would wait for each other


def _meet(place: Place) -> Store:
    """Return the store through which the ranks find each other, and which knows the first failure."""
    if place.meeting is not None:
        return FileStore(place.meeting, place.size)
    with peers():
        store, _, _ = next(iter(rendezvous("env://", place.rank, place.size)))
    assert isinstance(store, Store)
    return store


def _is_first(store: Store, failure: str) -> bool:
    """Whether no other rank has failed before; if so, the others can now read what this one says."""
    with contextlib.suppress(RuntimeError):  # the store ended with its rank
        if int(store.add(_FAILURES, 1)) > 1:
            return False
        store.set(_WORDS, failure)
    return True


@contextlib.contextmanager
def peers() -> Iterator[None]:
    """Raise PeerLost for what a collective raises where a rank has ended."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        words = f"another rank has ended, so this one cannot go on ({error})"
        with contextlib.suppress(RuntimeError):
            if _store is not None and _store.check([_WORDS]):
                words = f"another rank has failed: {_store.get(_WORDS).decode()}"
        raise PeerLost(words) from error


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield lists of neighbors of one dtype, of at most `_BUCKET` elements unless a single one is larger."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(other.numel() for other in bucket) + tensor.numel() > _BUCKET
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _on_gpu(kinds: Mapping[str, tuple[Any, Any, str]]) -> bool:
    return any(kind == "cuda" for _, _, kind in kinds.values())
