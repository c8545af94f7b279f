"""Data of jobs that go on together: a batch that several of them take is made once."""

from __future__ import annotations

from collections.abc import Iterator

from bigmodel.errors import ConfigError
from bigmodel.interfaces import Batch, Data, Reseeding

_KEPT_AT_MOST = 256e6  # bytes of an evaluation's batches


class Made:
    """What has been made: the last batch of each seed, and the batches of each split."""

    def __init__(self) -> None:
        self.last: dict[int, tuple[int, Batch]] = {}
        self.splits: dict[str, list[Batch]] = {}


class SharedData:
    """The `Data` of a job with this seed, made of `data`; `made` is common to all jobs."""

    def __init__(self, data: Data, seed: int, made: Made) -> None:
        self._data, self._seed, self._made = data, seed, made
        self.placement, self.streamed = data.placement, data.streamed
        self.splits, self.steps_per_epoch = data.splits, data.steps_per_epoch

    def reseeded(self, seed: int) -> SharedData:
        """The data of another job. ConfigError if there can be no other."""
        if not isinstance(self._data, Reseeding):
            raise ConfigError("dataset: its data cannot be shared by several jobs")
        return SharedData(self._data.reseeded(seed), seed, self._made)

    def train(self, first: int, last: int) -> Iterator[Batch]:
        for step in range(first, last):
            known, batch = self._made.last.get(self._seed, (-1, None))
            if batch is None or known != step:
                batch = next(self._data.train(step, step + 1))
                self._made.last[self._seed] = (step, batch)
            yield batch

    def evaluation(self, split: str) -> Iterator[Batch]:
        if split not in self._made.splits:
            batches = self._data.evaluation(split)
            first = next(batches, None)
            if first is None:
                return
            if first.inputs.nbytes / len(first.targets) * self.splits[split] > _KEPT_AT_MOST:
                yield first
                yield from batches
                return
            self._made.splits[split] = [first, *batches]
        yield from self._made.splits[split]
