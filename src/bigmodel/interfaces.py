"""What the loop asks of a task, of data and of a listener. Anything with these methods will do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class Batch(NamedTuple):
    """Samples that already lie on the device: `inputs` (N, ...) and `targets` (N, ...).

    `samples` (N,), int64 on the CPU, are their numbers in the data, where that is known.
    """

    inputs: Tensor
    targets: Tensor
    samples: Tensor | None = None

    def pieces(self, count: int) -> Sequence[Batch]:
        """At most `count` near-equal parts, in order."""
        if count == 1:
            return (self,)
        inputs, targets = self.inputs.chunk(count), self.targets.chunk(count)
        samples = [None] * len(inputs) if self.samples is None else self.samples.chunk(count)
        return [Batch(*part) for part in zip(inputs, targets, samples, strict=True)]


class Data(Protocol):
    """Batches as a pure function of (seed, step). Placement, order and augmentation are its own affair."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the training samples."""

    @property
    def splits(self) -> Mapping[str, int]:
        """Samples in each of train, val and test that exists."""

    def train(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps first to last - 1."""

    def evaluation(self, split: str) -> Iterator[Batch]:
        """Every sample of a split exactly once, not augmented."""


@runtime_checkable
class FromData(Protocol):
    """A model that computes some of its first weights from data."""

    def initialise(self, inputs: Tensor) -> None:
        """Take the inputs of the first training batch; called once, before training, without gradients."""


class Task(Protocol):
    """What a model is trained for: the loss, and the metrics as sums that add up exactly over batches."""

    lower_is_better: frozenset[str]
    metric_names: tuple[str, ...]

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss (scalar) and the model's outputs."""

    def tally(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """Sums over the batch (K,), cheap enough for every training step."""

    def metrics(self, tally: Sequence[float]) -> dict[str, float]:
        """Named metrics of summed tallies."""

    def examination(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """Sums over the batch (M,), for evaluation: all that `report` needs."""

    def report(self, examination: Sequence[float]) -> dict[str, Any]:
        """Named metrics of summed examinations, with tables such as a confusion matrix as nested lists."""


class Listener(Protocol):
    """Observes a run. It gets every event in order and changes nothing."""

    def __call__(self, event: object) -> None:
        """One event of `bigmodel.events`."""

    def close(self) -> None:
        """The run is over, however it ended."""
