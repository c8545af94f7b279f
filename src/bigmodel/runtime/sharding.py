"""Ranks of which none holds the whole model: each has some rows of every parameter, its gradient and its states.

torch's FSDP2 gathers the weights of a block just before they are needed and drops them afterwards. Gradients are added
up in the order of the ranks, as those of a model that each rank holds whole.
"""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from bigmodel.errors import ConfigError
from bigmodel.runtime.blocks import repeated_blocks
from bigmodel.runtime.distributed import Ranks, peers, use_world
from bigmodel.runtime.launch import Place
from bigmodel.runtime.world import own_rows

_T = TypeVar("_T")
_SHARD, _REPLICATE = "shard", "replicate"  # dimensions of the mesh


class Rows(Protocol):
    """Tensors of which some rows can be read."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the whole tensor."""

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Return the rows from `first` to `last` - 1."""


class Shards(Ranks):
    """Ranks that divide the model among them, in groups of `parts` ranks. See `World`."""

    is_divided = True

    def __init__(self, place: Place, mesh: DeviceMesh) -> None:
        super().__init__(place)
        self._mesh = mesh
        self._group = mesh.get_group(_SHARD)
        self.part = mesh.get_local_rank(_SHARD)
        self.parts = mesh.size(mesh.ndim - 1)
        self.is_copy = place.rank >= self.parts
        with peers():
            self._saves: Any = dist.new_group(backend="gloo")  # threads would mix up the messages of one group

    def deal(self, items: Iterable[_T]) -> Iterable[_T]:
        """Deal equally many to all, since ranks compute together: an idle one gets another's."""
        self.is_idle, stand_in, own = False, None, None
        for number, item in enumerate(items):
            self.place.sign()
            turn = number % self.size
            stand_in, own = (item, None) if turn == 0 else (stand_in, own)
            own = item if turn == self.rank else own
            if turn == self.size - 1:
                yield own  # type: ignore[misc]
                stand_in = None
        if stand_in is not None:
            self.is_idle = own is None
            yield stand_in if own is None else own
            self.is_idle = False

    def sum_step(
        self, gradients: Sequence[Tensor], sums: Mapping[str, Tensor], as_tree: bool = False
    ) -> Mapping[str, Tensor]:
        """Add up `sums` alone: gradients were added up as they came."""
        return dict(zip(sums, self._add_up(torch.stack([*sums.values()])).unbind(), strict=True))

    def channel(self) -> Callable[[Any], list[Any]]:
        return self._tell_all

    def _tell_all(self, value: Any) -> list[Any]:
        values = [None] * self.size
        with peers(signs=False):
            dist.all_gather_object(values, value, self._saves)
        return values

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        square = torch.nn.utils.get_total_norm(tensors).double().square()
        squares = [torch.empty_like(square) for _ in range(self.parts)]
        with peers():
            dist.all_gather(squares, square, group=self._group)
        return torch.stack(squares).sum().sqrt().float()

    def without_gradients(self) -> AbstractContextManager[Any]:
        return torch.no_grad()  # weights that are gathered in inference mode could not be trained afterwards

    def map_whole(self, parts: Sequence[Tensor], rows: int, compute: Callable[[Tensor], Tensor]) -> Sequence[Tensor]:
        """Divide the matrices among the ranks, so that each computes some of them whole. Costs two all-to-alls."""
        heights = self._lengths(rows)
        counts = self._lengths(len(parts))
        own = heights[self.part]
        mine = counts[self.part]
        columns = parts[0].shape[1]
        sent = [count * own * columns for count in counts]
        kept = [mine * height * columns for height in heights]
        got = self._exchange(torch.cat([part.reshape(-1) for part in parts]), kept, sent)
        pieces = [
            piece.view(mine, height, columns) for piece, height in zip(torch.split(got, kept), heights, strict=True)
        ]
        back = got.new_empty(0)
        if mine:
            whole = compute(torch.cat(pieces, 1))
            back = torch.cat([piece.reshape(-1) for piece in torch.split(whole, heights, 1)])
        return self._exchange(back, sent, kept).view(len(parts), own, columns).unbind()

    def first_row(self, tensor: Tensor) -> int | None:
        return _first_row(len(tensor), self.part, self.parts) if isinstance(tensor, DTensor) else None

    def placed(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Read of each tensor what this rank has of the one it is `like`; one of another shape is read whole."""
        source: Rows = tensors  # type: ignore[assignment]
        found = {}
        for name in tensors:
            target = like.get(name)
            if not isinstance(target, DTensor) or source.shape(name) != tuple(target.shape):
                found[name] = tensors[name]
                continue
            first = _first_row(len(target), self.part, self.parts)
            rows = source.rows(name, first, first + len(own_rows(target))).to(target.device)
            found[name] = DTensor.from_local(
                rows, target.device_mesh, target.placements, run_check=False, shape=target.shape, stride=target.stride()
            )
        return found

    def _lengths(self, rows: int) -> list[int]:
        first = [_first_row(rows, part, self.parts) for part in range(self.parts + 1)]
        return [after - before for before, after in itertools.pairwise(first)]

    def _exchange(self, sent: Tensor, receive: list[int], send: list[int]) -> Tensor:
        received = sent.new_empty(sum(receive))
        with peers():
            dist.all_to_all_single(received, sent, receive, send, group=self._group)
        return received


def shard_models(models: Sequence[nn.Module], place: Place, device: torch.device, parts: int) -> Shards:
    """Divide each model among groups of `parts` ranks, in place, by repeated block; move it to the device.

    From now on the process computes together with the returned ranks.

    Raises:
        ConfigError: a parameter has no rows.
    """
    for name, parameter in models[0].named_parameters():
        if not parameter.ndim:
            raise ConfigError(f"device.shard: {name} is a single number, which has no rows to divide; use none")
    shape, names = (
        ((parts,), (_SHARD,)) if parts == place.size else ((place.size // parts, parts), (_REPLICATE, _SHARD))
    )
    with peers():
        mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
    # torch warns of each module that returns a view: an in-place change of it would be lost, and no model makes one
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    for model in models:
        model.to(memory_format=torch.contiguous_format)
        for module in (*_blocks(model), model):
            sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
            sharded.set_custom_reduce_scatter(_SumInOrder())  # type: ignore[arg-type]
            sharded.set_gradient_divide_factor(1.0)  # a sum, not a mean
            sharded.set_force_sum_reduction_for_comms(True)
        root: Any = model
        root._get_fsdp_state()._lazy_init()  # now, not at the first forward pass
    world = Shards(place, mesh)
    use_world(world)
    return world


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a model that have weights, and share none with other parts of it."""
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    counts = {block: [uses[id(p)] for p in block.parameters()] for _, block in repeated_blocks(model)}
    return [block for block, times in counts.items() if times and max(times) == 1]


class _SumInOrder:
    """FSDP2's reduce-scatter as the sum ((0 + 1) + 2) + ... over the ranks; sends as much as a ring."""

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: object, async_op: bool = False
    ) -> None:
        received = torch.empty_like(input_tensor)
        with peers():
            dist.all_to_all_single(received, input_tensor, group=group)
        total, *others = received.view(dist.get_world_size(group), -1).unbind()
        for other in others:
            total = total + other
        output_tensor.copy_(total)


def _first_row(rows: int, part: int, parts: int) -> int:
    """Return the first row of a part, as torch.chunk divides `rows`."""
    return min(rows, part * -(-rows // parts))
