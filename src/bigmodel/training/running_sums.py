"""Sums of a task's metrics by name: those of a split, and those of training since the log was last written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate


def add_sums(sums: Mapping[str, Tensor], added: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Add named sums in `dtype`; empty `sums` stand for zeros. Scalars on a GPU are added in one kernel."""
    values = [value.to(dtype) for value in added.values()]
    return dict(zip(added, torch._foreach_add(values, [sums[name] for name in added]) if sums else values, strict=True))


class RunningSums:
    """Sums of scalars over steps, in `dtype` on `device`; a checkpoint keeps them."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._device = device
        self._sums: Mapping[str, Tensor] = {}
        self._restored: Mapping[str, float] | Sequence[float] | None = None  # until the next step

    def add(self, added: Mapping[str, Tensor]) -> None:
        """Add the sums of one step. Older checkpoints kept them without names, in the same order.

        Raises:
            ConfigError: the restored sums are others.
        """
        if (restored := self._restored) is not None:
            known = restored if isinstance(restored, Mapping) else dict(zip(added, restored, strict=False))
            if known.keys() != added.keys() or len(restored) != len(added):
                raise ConfigError(
                    f"resume: the checkpoint has running sums of {truncate(', '.join(known))}, this task has "
                    f"{', '.join(added)}; it is of another task or damaged"
                )
            self._sums = {name: torch.tensor(known[name], dtype=self._dtype, device=self._device) for name in added}
            self._restored = None
        self._sums = add_sums(self._sums, added, self._dtype)

    def pop(self) -> dict[str, Tensor]:
        """Return the sums on the CPU, and begin anew. Synchronizes with the device."""
        assert self._sums, "no step since the last call"
        sums, self._sums = self._sums, {}
        values = torch.stack(list(sums.values())).cpu()  # one copy from the device, not one for each sum
        return dict(zip(sums, values, strict=True))

    def to_json(self) -> Mapping[str, float] | Sequence[float] | None:
        """Return the sums as numbers, which JSON keeps exactly."""
        return {name: value.item() for name, value in self._sums.items()} or self._restored

    def restore(self, saved: Mapping[str, float] | Sequence[float] | None) -> None:
        """Go on from what `to_json` returned. The next step says whether the names are right."""
        self._sums = {}
        self._restored = saved
