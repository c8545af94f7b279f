"""Samples that are decoded from files when a batch takes them, so that more of them than memory holds can be used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplesOnDemand:
    """Samples of one shape, decoded from their sources by index. An `IndexableSamples` on the CPU.

    `decode` makes one sample (`sample_shape`) of one source. It runs on one thread, here as in a worker process:
    how many threads share a sum may change its last bits.
    """

    sources: Sequence[Any]
    decode: Callable[[Any], Tensor]
    sample_shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.sources), *self.sample_shape))

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, indices_N: Tensor) -> Tensor:
        """Return the samples (N, ...) with these indices; each is decoded once, however often it is asked for."""
        if "all_decoded" in self.__dict__:
            return self.all_decoded[indices_N]
        distinct_M, inverse_N = torch.unique(indices_N, return_inverse=True)
        return self._decode(distinct_M.tolist())[inverse_N]

    def to(self, device: torch.device) -> Tensor:
        """Decode all samples and copy them to the device."""
        return self.all_decoded.to(device)

    @cached_property
    def all_decoded(self) -> Tensor:
        """All samples (N, ...) in the computer's memory; decoded at the first use, then kept."""
        return self._decode(range(len(self.sources)))

    def _decode(self, indices: Sequence[int]) -> Tensor:
        samples = torch.empty(len(indices), *self.sample_shape, dtype=self.dtype)
        with _one_thread():
            for row, index in enumerate(indices):
                samples[row] = self.decode(self.sources[index])
        return samples


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
