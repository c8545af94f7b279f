"""The ranks of a run: processes that share every batch and add up what each computes.

Sums are added in the order of the ranks, so that N ranks give the bits of one process with `accumulate=N`, or as a
tree, so that any number of ranks gives the same bits. Only this file and `sharding` touch torch.distributed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch._C._distributed_c10d import FileStore, PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from bigmodel.errors import AlreadyReported, Interrupted, PeerLost
from bigmodel.interfaces import Batch
from bigmodel.runtime.launch import PEER_LOST, Place
from bigmodel.runtime.meeting import agree, final_code, is_first, note_final, words_for_lost
from bigmodel.runtime.signals import let_signals_in
from bigmodel.runtime.world import World

_T = TypeVar("_T")
BUCKET = 1 << 24  # elements of the gradients that are added up at once; each bucket is copied
_LONGEST, _ANSWER = timedelta(days=30), timedelta(seconds=5)  # for a rank; for the store, once a rank is lost


class Ranks(World):
    """Several processes that train one model. See `World`."""

    def pieces(self, batch: Batch, count: int) -> Iterable[tuple[int, Batch]]:
        self.place.sign()
        share = count // self.size
        first = self.rank * share
        pieces = batch.microbatches(count)
        own = pieces[first : first + share]
        self.is_idle = not own
        # an idle rank must compute something, or the others would wait for its part of the sums
        return enumerate(own or pieces[:1], first)

    def counted(self, sums: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: torch.zeros_like(value) for name, value in sums.items()} if self.is_idle else sums

    def deal(self, items: Iterable[_T]) -> Iterable[_T]:
        for item in itertools.islice(items, self.rank, None, self.size):
            self.place.sign()
            yield item

    def sum_step(
        self, gradients: Sequence[Tensor], sums: Mapping[str, Tensor], as_tree: bool = False
    ) -> Mapping[str, Tensor]:
        if self.is_idle:  # zeros already, unless its loss was not finite; -0.0 + x is x, also where x is -0.0
            torch._foreach_zero_([*gradients])
            torch._foreach_neg_([*gradients])
        for bucket in _buckets(gradients):
            flat = self._add_up(torch.cat([gradient.reshape(-1) for gradient in bucket]), as_tree)
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(to) for part, to in zip(parts, bucket, strict=True)])
        added = self._add_up(torch.stack([*sums.values()]), as_tree)
        return dict(zip(sums, added.unbind(), strict=True))

    def in_order(self, own: Iterable[Mapping[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
        self.is_idle = False
        mine = iter(own)
        round_: list[Any] = [()] * self.size
        while None not in round_:  # a round in which a rank has nothing is the last
            sums = next(mine, None)
            sent = None if sums is None or self.is_idle else {name: value.cpu() for name, value in sums.items()}
            with peers():
                dist.all_gather_object(round_, sent)
            yield from (sums for sums in round_ if sums is not None)

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

    def _add_up(self, flat: Tensor, as_tree: bool = False) -> Tensor:
        """Return the sum ((0 + 1) + 2) + ... over the ranks, or of pairs, whatever the order of the collective's sums.

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
            rows = shares.view(self.size, width).unbind()
            total = _tree_sum(rows) if as_tree else functools.reduce(torch.add, rows)
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
_whole_store: Store | None = None  # of all starts of a torchrun
_store: Store | None = None  # what of it is of this start


def current_world() -> World:
    """Return the ranks that this process has joined; alone, a world of one."""
    return _current


def use_world(world: World) -> None:
    """Have the ranks that this process has joined do what they share as `world` does."""
    global _current
    _current = world


@contextlib.contextmanager
def join_ranks(place: Place, use_gpus: bool, timeout_s: float | None = None) -> Iterator[World]:
    """Join the other ranks, and leave them at the end. If several fail, only the first failure is raised as itself.

    Another rank is waited for up to `timeout_s`, unless the process that started the ranks watches them.

    Raises:
        AlreadyReported: another rank reports the failure, or the process that started the ranks does.
        PeerLost: another rank has ended, and nobody has said why.
    """
    global _current, _store
    _current = Ranks(place) if place.size > 1 else World(place)
    try:
        let_signals_in()
        if place.size > 1:
            _meet(place, use_gpus, timeout_s)
        yield _current
    except AlreadyReported:
        raise
    except PeerLost as error:
        if place.is_watched or not is_first(_store, place, str(error)):
            raise AlreadyReported(PEER_LOST) from error
        raise
    except Exception as error:
        code = getattr(error, "code", 1)
        if not is_first(_store, place, str(error)):
            raise AlreadyReported(code) from error
        if not isinstance(error, Interrupted):
            note_final(_whole_store, code)
        raise
    finally:
        _current = World()
        _store = None  # the group itself ends with the process: to take it apart, ranks would wait for each other


def _meet(place: Place, use_gpus: bool, timeout_s: float | None) -> None:
    """Find the other ranks, and form a group with them."""
    global _store, _whole_store
    longest = _LONGEST if place.is_watched or timeout_s is None else timedelta(seconds=timeout_s)
    with peers():
        if place.meeting is not None:
            whole: Store = FileStore(place.meeting, place.size)
        else:
            whole, _, _ = next(iter(rendezvous("env://", place.rank, place.size, timeout=longest)))
        whole.set_timeout(longest)
        _whole_store = whole
        if (code := final_code(whole)) is not None:
            raise AlreadyReported(code)
        _store = PrefixStore(agree(whole, place), whole)
    if use_gpus:
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if use_gpus else "gloo"
    with peers():
        own = PrefixStore("group", _store)
        dist.init_process_group(backend, timeout=longest, store=own, rank=place.rank, world_size=place.size)


@contextlib.contextmanager
def peers(signs: bool = True) -> Iterator[None]:
    """Raise PeerLost for what a collective raises where a rank has ended or hangs; meanwhile this one waits.

    A thread other than the training one sets `signs` to false: it gives no signs of life.
    """
    place = _current.place
    if signs:
        place.sign(waits=True)
    try:
        yield
        if signs:
            place.sign()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if _whole_store is not None:
            _whole_store.set_timeout(_ANSWER)
        raise PeerLost(words_for_lost(_store, place, str(error))) from error


def _tree_sum(rows: Sequence[Tensor]) -> Tensor:
    """Add up pairs of neighbors, then pairs of their sums, and so on; the number of rows is a power of two."""
    while len(rows) > 1:
        rows = [left + right for left, right in zip(rows[::2], rows[1::2], strict=True)]
    return rows[0]


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield lists of neighbors of one dtype, of at most `BUCKET` elements unless a single one is larger."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(other.numel() for other in bucket) + tensor.numel() > BUCKET
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
