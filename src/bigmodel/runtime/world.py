"""Operations that a run shares with the other processes that train the same model; alone, they do nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from bigmodel.interfaces import Batch
from bigmodel.runtime.launch import Place

_T = TypeVar("_T")
_ALONE = Place(rank=0, size=1, local_rank=0)


class World:
    """A run in one process: nothing is shared, added or waited for. `Ranks` is the same for several processes, `Shards`
    for several that divide the model.

    All ranks must call the same methods in the same order.

    Raises:
        PeerLost: another rank has ended.
    """

    is_divided = False  # whether each rank holds a part of the model: number `part` of `parts`
    part, parts = 0, 1
    is_copy = False  # whether a rank before this one holds the same part

    def __init__(self, place: Place = _ALONE) -> None:
        self.place = place
        self.rank = place.rank
        self.size = place.size
        self.is_idle = False  # whether the last of `pieces` stands in for none, and counts for nothing

    def pieces(self, batch: Batch, count: int) -> Iterable[tuple[int, Batch]]:
        """Return this rank's share of a batch that all ranks cut into `count` pieces, each with its index in the batch.

        The pieces are those of `Batch.microbatches`; a share is consecutive, and of as many pieces on each rank.
        """
        return enumerate(batch.microbatches(count))

    def counted(self, sums: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the sums over a piece of a batch: zeros where this rank is idle."""
        return sums

    def deal(self, items: Iterable[_T]) -> Iterable[_T]:
        """Return this rank's share of `items`, dealt in turns."""
        return items

    def sum_step(
        self, gradients: Sequence[Tensor], sums: Mapping[str, Tensor], as_tree: bool = False
    ) -> Mapping[str, Tensor]:
        """Add up the gradients over the ranks, in place, and return the added scalars `sums`, for the last `pieces`.

        Ranks are added in their order or, with `as_tree`, in pairs: 0 + 1, 2 + 3, then the sums of both.
        """
        return sums

    def in_order(self, own: Iterable[Mapping[str, Tensor]]) -> Iterable[Mapping[str, Tensor]]:
        """Yield the named tensors of all ranks, in the order in which `deal` has dealt what they were computed from."""
        return own

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        return flag

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors by those of rank 0."""

    def broadcast_text(self, text: str) -> str:
        """Return the text of rank 0."""
        return text

    def gather(self, values: Tensor) -> Tensor:
        """Stack the tensors (...) of all ranks to (size, ...); gradients flow back to the ranks they came from."""
        return values[None]

    def channel(self) -> Callable[[Any], list[Any]]:
        """Return a function that gives each rank's value to all; a thread may call it while others compute."""
        return lambda value: [value]

    def without_gradients(self) -> contextlib.AbstractContextManager[Any]:
        """Compute what will not be trained."""
        return torch.inference_mode()

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the norm of all that the ranks hold different rows of."""
        return torch.nn.utils.get_total_norm(tensors)

    def map_whole(self, parts: Sequence[Tensor], rows: int, compute: Callable[[Tensor], Tensor]) -> Sequence[Tensor]:
        """Compute matrices from a stack of matrices of `rows` rows, of which each rank gives and gets its own rows."""
        return compute(torch.stack([*parts])).unbind()

    def first_row(self, tensor: Tensor) -> int | None:
        """Return the first row that this rank holds of a divided tensor; None: each rank holds all of it."""
        return None

    def placed(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the part of saved `tensors` that this rank holds; `like` are its own tensors of these names."""
        return tensors


def own_rows(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor: all of it, unless it is divided among the ranks."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # a DTensor, whose class need not be imported
