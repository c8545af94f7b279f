"""Rows of several sequences each, so that few places are padding. No sequence is cut.

Which sequences lie in a row is a function of (lengths, seed, epoch), and how many rows there are of the lengths alone.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bigmodel.datasets.loading.splits import Splits, holdout_split
from bigmodel.datasets.loading.streaming import describe_placement, stream, to_device
from bigmodel.interfaces import Batch, LoaderOptions
from bigmodel.padding import pad
from bigmodel.seeds import derive

_MULTIPLE = 8  # rows of a batch have a multiple of this length: few shapes for code that is compiled for each


@runtime_checkable
class PacksRows(Protocol):
    """A dataset that may put several sequences into one row: inputs (N, T, 2)."""

    packs_rows: bool


class Packing:
    """Rows of at most `room` tokens for sequences of `lengths_N`: longest first, each into the fullest row with room.

    Sequences of equal length take each other's places from one epoch to the next.
    """

    def __init__(self, lengths_N: Tensor, room: int) -> None:
        self.lengths_N = lengths_N
        self.room = room
        rows: list[list[int]] = []  # places in the order of length
        free: list[tuple[int, int]] = []  # tokens and row, sorted
        for rank, length in enumerate(lengths_N.sort(descending=True).values.tolist()):
            found = bisect.bisect_left(free, (length, -1))
            left, row = free.pop(found) if found < len(free) else (room, len(rows))
            rows += [[]] if row == len(rows) else []
            rows[row].append(rank)
            bisect.insort(free, (left - length, row))
        self._ranks_RM = pad([torch.tensor(row) for row in rows]) if rows else torch.empty(0, 0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._ranks_RM)

    @property
    def filled(self) -> float:
        """The share of the rows' tokens that are no padding."""
        return float(self.lengths_N.sum()) / max(1, len(self) * self.room)

    def rows(self, key: int) -> Tensor:
        """Return the sequences of each row, int64 (R, M), filled up with -1: another arrangement for each `key`."""
        shuffled_N = torch.randperm(len(self.lengths_N), generator=torch.Generator().manual_seed(key))
        by_length = self.lengths_N[shuffled_N].sort(descending=True, stable=True).indices
        return shuffled_N[by_length][self._ranks_RM.clamp(min=0)].where(self._ranks_RM >= 0, -1)


@dataclass(frozen=True)
class PackedDataset:
    """A `Dataset` of sequences in rows: inputs (N, T, 2) of each token and its position in its sequence; a target for
    each (N, T). Padding is -1.

    `sequences` are all tokens and targets one after another, and the first and the number of each; `indices` those of
    each split.
    """

    sequences: _Sequences
    indices: Mapping[str, Tensor]
    packings: Mapping[str, Packing]
    properties: Mapping[str, Any]
    description: str
    spec: Mapping[str, Any]
    fingerprint: str
    notes: Sequence[str] = ()

    packs_rows = True

    @classmethod
    def of(
        cls,
        tokens: Sequence[Tensor],
        targets: Sequence[Tensor],
        room: int,
        val_fraction: float,
        described: str,
        **facts: Any,
    ) -> PackedDataset:
        """Pack sequences of at most `room` tokens; hold out a fraction of them. `facts` are further fields."""
        lengths_N = torch.tensor([len(one) for one in tokens])
        sequences = _Sequences(torch.cat([*tokens]), torch.cat([*targets]), lengths_N.cumsum(0) - lengths_N, lengths_N)
        train, val = holdout_split(len(tokens), val_fraction)
        indices = {"train": train} | ({"val": val} if len(val) else {})
        packings = {name: Packing(lengths_N[part], room) for name, part in indices.items()}
        rows = ", ".join(f"{len(one):,} {name} ({100 * one.filled:.1f} % filled)" for name, one in packings.items())
        return cls(sequences, indices, packings, description=f"{described}, in rows of {room:,}: {rows}", **facts)

    def processor_spec(self) -> Mapping[str, Any]:
        return self.spec

    def sample_batch(self, count: int) -> Batch:
        rows_RM = self.rows("train", 0)
        return Batch(*self.sequences(rows_RM[torch.arange(count) % len(rows_RM)]))

    def rows(self, split: str, key: int) -> Tensor:
        """Return the sequences of each row of a split, numbered as in the data: see `Packing.rows`."""
        rows_RM = self.packings[split].rows(key)
        return self.indices[split][rows_RM.clamp(min=0)].where(rows_RM >= 0, -1)

    def loader(self, options: LoaderOptions) -> PackedLoader:
        return PackedLoader(self, options)


class PackedLoader:
    """The `Loader` of a `PackedDataset`; a sample is a row. Of more than `resident_bytes` it is streamed."""

    def __init__(self, dataset: PackedDataset, options: LoaderOptions) -> None:
        self._dataset = dataset
        self._options = options
        self._splits = Splits({name: len(one) for name, one in dataset.packings.items()}, 0.0, options)
        self.splits = self._splits.counts
        self.steps_per_epoch = self._splits.steps_per_epoch
        size = dataset.sequences.nbytes
        self._is_resident = size <= options.resident_bytes
        self._read = dataset.sequences.to(options.device) if self._is_resident else dataset.sequences
        self.uses_workers = not self._is_resident and options.workers > 0
        self.describe_placement = describe_placement(size, options.resident_bytes, options.workers)

    def train_batches(self, first: int, last: int) -> Iterator[Batch]:
        return self._batches(self._train_rows(first, last))

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """Every sequence comes once, and in the same rows in each evaluation."""
        source, batches = self._splits.eval_indices(split)
        rows_RM = self._dataset.rows(source, 0)
        return self._batches(rows_RM[indices] for indices in batches)

    def _train_rows(self, first: int, last: int) -> Iterator[Tensor]:
        arranged, rows_RM = -1, torch.empty(0)
        for step, indices in enumerate(self._splits.train_indices(first, last), first):
            epoch = 0 if self._options.overfit_batch else step // self.steps_per_epoch
            if epoch != arranged:
                arranged, rows_RM = epoch, self._dataset.rows("train", derive(self._options.seed, "rows", epoch))
            yield rows_RM[indices]

    def _batches(self, rows: Iterator[Tensor]) -> Iterator[Batch]:
        if self._is_resident:
            return (Batch(*self._read(rows_NM)) for rows_NM in rows)
        workers = self._options.workers
        return (Batch(*pair) for _, pair in stream(self._read, rows, self._options.device, workers))


@dataclass(frozen=True)
class _Sequences:
    """Sequences one after another: rows of them (N, M) on the CPU in, inputs and targets out, where the tokens are."""

    tokens_S: Tensor
    targets_S: Tensor
    first_N: Tensor  # on the CPU, as the lengths: no batch waits for the device
    lengths_N: Tensor

    @property
    def nbytes(self) -> int:
        return self.tokens_S.nbytes + self.targets_S.nbytes

    def to(self, device: torch.device) -> _Sequences:
        return _Sequences(self.tokens_S.to(device), self.targets_S.to(device), self.first_N, self.lengths_N)

    def __call__(self, rows_NM: Tensor) -> tuple[Tensor, Tensor]:
        lengths_NM = self.lengths_N[rows_NM.clamp(min=0)].where(rows_NM >= 0, 0)
        ends_NM = lengths_NM.cumsum(1)
        totals_N1 = ends_NM[:, -1:]
        length = -(-int(totals_N1.max()) // _MULTIPLE) * _MULTIPLE
        places_NT = torch.arange(length).expand(len(rows_NM), -1).contiguous()
        which_NT = torch.searchsorted(ends_NM, places_NT, right=True).clamp(max=rows_NM.shape[1] - 1)
        within_NT = places_NT - (ends_NM - lengths_NM).gather(1, which_NT)
        source_NT = self.first_N[rows_NM.gather(1, which_NT).clamp(min=0)] + within_NT
        is_padding_NT = places_NT >= totals_N1
        device = self.tokens_S.device
        source_NT = to_device(source_NT.masked_fill(is_padding_NT, -1), device)
        positions_NT = to_device(within_NT.masked_fill(is_padding_NT, -1), device)
        tokens_NT, targets_NT = (one[source_NT].where(source_NT >= 0, -1) for one in (self.tokens_S, self.targets_S))
        return torch.stack([tokens_NT, positions_NT], dim=2), targets_NT
