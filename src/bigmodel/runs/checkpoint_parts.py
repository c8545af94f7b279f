"""Save a checkpoint by all ranks of a divided model: each writes, syncs and hashes its rows, rank 0 makes it one.

The manifest comes last, so what ranks have written counts only when all of it is on the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bigmodel.errors import PeerLost
from bigmodel.runs import checkpoint
from bigmodel.runs.checkpoint_path import checkpoint_path
from bigmodel.runs.tensor_files import write_tensors
from bigmodel.runtime.world import World, own_rows

Tensors = Mapping[str, Mapping[str, Tensor]]


class PartialSaves:
    """One rank's part in the checkpoints of a divided model. All ranks save the same steps in the same order."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._channel = world.channel()
        self.waits = False  # for what another rank says
        self._first_rows: dict[str, dict[str, int]] = {}
        self._is_told = False  # whether all ranks know of the failure of a save

    def own(self, tensors: Tensors) -> dict[str, dict[str, Tensor]]:
        """Return what this rank writes: its rows and, as rank 0, what every rank has."""
        kept: dict[str, dict[str, Tensor]] = {}
        self._first_rows = {}
        for group, named in tensors.items():
            kept[group], self._first_rows[group] = {}, {}
            for name, tensor in named.items():
                rows, first = own_rows(tensor), self._world.first_row(tensor)
                if self._world.rank and (first is None or self._world.is_copy or not len(rows)):
                    continue
                kept[group][name] = rows
                if first is not None:
                    self._first_rows[group][name] = first
        return kept

    def commit(
        self, root: Path, step: int, tensors: Tensors, state: Mapping[str, Any], keep: int, passing: bool
    ) -> Path:
        """Take part in a save; on rank 0 as `checkpoint.commit`.

        Raises:
            OSError: a disk is full or refuses, for any rank; nothing that was there before is lost.
            PeerLost: another rank has ended.
        """
        self._is_told = False
        if self._world.rank:
            scratch = self._hear()
            self._write(Path(scratch), tensors)
            self._hear()
            return checkpoint_path(root, step)
        try:
            path = checkpoint.commit(root, step, tensors, state, keep, passing, self._announce_and_write)
        except PeerLost:
            raise
        except Exception as error:
            if not self._is_told:
                self._exchange(error)
            raise
        self._exchange(None)
        return path

    def _announce_and_write(self, scratch: Path, tensors: Tensors) -> dict[str, dict[str, Any]]:
        self._exchange(str(scratch))
        return self._write(scratch, tensors)

    def _write(self, scratch: Path, tensors: Tensors) -> dict[str, dict[str, Any]]:
        """Write this rank's files; return what the manifest says of those of all ranks. Raises what any has met."""
        mine: Any = {}
        try:
            if not self._world.is_copy:
                part = f".{self._world.part + 1:05d}-of-{self._world.parts:05d}"
                mine = write_tensors(scratch, tensors, part, self._first_rows)
        except Exception as error:
            mine = error
        files: dict[str, dict[str, Any]] = {}
        for found in self._exchange(mine):
            if isinstance(found, Exception):
                self._is_told = True
                raise found
            files |= found
        return files

    def _exchange(self, value: Any) -> list[Any]:
        self.waits = True
        values = self._channel(value)
        self.waits = False
        return values

    def _hear(self) -> Any:
        """Return what rank 0 says, or raise what it has met."""
        said = self._exchange(None)[0]
        if isinstance(said, Exception):
            raise said
        return said
