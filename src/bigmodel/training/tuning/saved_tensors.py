"""Count what the forward pass of a model keeps for its backward pass. Works on real tensors, and on fake ones too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bigmodel.runtime.blocks import repeated_blocks

LOSS = "(loss)"


class SavedTensors:
    """Bytes of the tensors that autograd has saved in a forward pass, each counted once; weights are not among them."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._blocks = dict(repeated_blocks(model))
        self._own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._casts: dict[int, int] = {}  # copies of weights in another dtype
        self._saved: dict[int, tuple[str, int]] = {}  # by storage: module and bytes
        self._block_inputs: dict[int, int] = {}
        self._inside = [LOSS]  # the modules whose forward pass is under way
        self._alive: list[Tensor] = []  # a freed tensor's identity would be used again

    @property
    def by_module(self) -> Mapping[str, int]:
        """Bytes by dotted name of the module that has saved them first; `LOSS` is outside all."""
        found: dict[str, int] = {}
        for storage, (name, size) in self._saved.items():
            if storage not in self._casts:
                found[name] = found.get(name, 0) + size
        return found

    @property
    def num_bytes(self) -> int:
        return sum(self.by_module.values())

    @property
    def cast_bytes(self) -> int:
        """Bytes of weights in another dtype, which autocast makes and the backward pass needs."""
        return sum(size for storage, (_, size) in self._saved.items() if storage in self._casts)

    @property
    def checkpointed_bytes(self) -> int:
        """Bytes where blocks keep their inputs alone: these, what is outside of blocks, and one block at a time."""
        in_block = dict.fromkeys(self._blocks, 0)
        kept = dict(self._block_inputs)
        for storage, (name, size) in self._saved.items():
            block = next((block for block in in_block if f"{name}.".startswith(f"{block}.")), None)
            if block is not None:
                in_block[block] += size
            elif storage not in self._casts:
                kept[storage] = size
        return sum(kept.values()) + max(in_block.values(), default=0)

    @contextlib.contextmanager
    def recording(self) -> Iterator[SavedTensors]:
        """Record a forward pass; modules are hooked meanwhile."""
        handles = []
        for name, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor), _Casts(self):
                yield self
        finally:
            for handle in handles:
                handle.remove()

    def note_cast(self, source: Tensor, cast: Tensor) -> None:
        """Take a tensor in another dtype; it is of interest if it was made from a weight."""
        if _storage(source) in self._own and _storage(cast) not in self._own:
            self._alive.append(cast)
            self._casts[_storage(cast)] = cast.untyped_storage().nbytes()

    def _note(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self._own:
            self._saved.setdefault(_storage(tensor), (self._inside[-1], tensor.untyped_storage().nbytes()))
            self._alive.append(tensor)
        return tensor

    def _enter(self, name: str, module: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any]) -> None:
        self._inside.append(name)
        if name in self._blocks:
            for value in (*inputs, *named.values()):
                if isinstance(value, Tensor) and _storage(value) not in self._own:
                    self._block_inputs[_storage(value)] = value.untyped_storage().nbytes()
                    self._alive.append(value)

    def _leave(self, *_: object) -> None:
        self._inside.pop()


class _Casts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tell of every tensor that is copied to another dtype."""

    def __init__(self, saved: SavedTensors) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._saved = saved

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            self._saved.note_cast(args[0], result)
        return result


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
