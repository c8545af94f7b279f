"""Data of jobs that go on together: a batch that several of them take is made once."""

from __future__ import annotations

from collections.abc import Iterator

from bigmodel.datasets.pipeline import ImageData
from bigmodel.interfaces import Batch

_KEPT_AT_MOST = 256e6  # bytes of an evaluation's batches


class Made:
    """What has been made: the last batch of each seed, and the batches of each split."""

    def __init__(self) -> None:
        self.last: dict[int, tuple[int, Batch]] = {}
        self.splits: dict[str, list[Batch]] = {}


class SharedData(ImageData):
    """A job's data; `made` is common to all jobs. The images must lie in memory."""

    def __init__(self, data: ImageData, seed: int, made: Made) -> None:
        self.__dict__.update(data.__dict__)
        self._key, self._made = seed, made

    def train(self, first: int, last: int) -> Iterator[Batch]:
        """As `ImageData.train`."""
        for step in range(first, last):
            known, batch = self._made.last.get(self._key, (-1, None))
            if batch is None or known != step:
                batch = next(super().train(step, step + 1))
                self._made.last[self._key] = (step, batch)
            yield batch

    def evaluation(self, split: str) -> Iterator[Batch]:
        """As `ImageData.evaluation`."""
        if split not in self._made.splits:
            batches = super().evaluation(split)
            first = next(batches, None)
            if first is None:
                return
            if first.inputs.nbytes / len(first.targets) * self.splits[split] > _KEPT_AT_MOST:
                yield first
                yield from batches
                return
            self._made.splits[split] = [first, *batches]
        yield from self._made.splits[split]
