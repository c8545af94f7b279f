"""Protocols of the parts that a package can add: dataset, loader, processor, task, listener.

Any object with these methods will do; there is no base class. A sample is one input tensor and one target tensor:
only datasets, models, tasks and processors know whether it is an image, a table row, a sound or a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bigmodel.metric_spec import MetricSpec


class Batch(NamedTuple):
    """Samples on the device: `inputs` (N, ...), `targets` (N, ...).

    - Sequences of unequal length are padded at the end, integers with -1 and floats with NaN: see `bigmodel.padding`.
    - `sample_ids` (N,): int64 on the CPU, indices of the samples in the dataset; None if unknown.
    """

    inputs: Tensor
    targets: Tensor
    sample_ids: Tensor | None = None

    def microbatches(self, count: int) -> Sequence[Batch]:
        """Split into at most `count` micro-batches of nearly equal size, in order."""
        if count == 1:
            return (self,)
        inputs, targets = self.inputs.chunk(count), self.targets.chunk(count)
        samples = [None] * len(inputs) if self.sample_ids is None else self.sample_ids.chunk(count)
        return [Batch(*part) for part in zip(inputs, targets, samples, strict=True)]


@dataclass(frozen=True)
class LoaderOptions:
    """Options of a loader.

    `balanced`: every class appears equally often in an epoch; ConfigError if samples have no class.
    """

    device: torch.device
    batch_size: int
    seed: int
    resident_bytes: float = 4e9
    workers: int = 0
    limit_batches: int | None = None
    overfit_batch: bool = False
    balanced: bool = False


class Loader(Protocol):
    """Yields batches as a pure function of (seed, step); decides placement, order and augmentation."""

    @property
    def describe_placement(self) -> str:
        """Where the training samples are stored and why, as text for the plan."""

    @property
    def uses_workers(self) -> bool:
        """Whether worker processes read the training samples, so that the loop may have to wait for them."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the training samples."""

    @property
    def splits(self) -> Mapping[str, int]:
        """Number of samples in each split that exists: train, val, test."""

    def train_batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of steps `first` to `last` - 1."""

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """Yield every sample of a split exactly once, without augmentation."""


@runtime_checkable
class CountsClasses(Protocol):
    """A `Loader` that supports `balanced` and can count the samples of each class."""

    def class_counts(self) -> Tensor | None:
        """Return the number of training samples of each class, int64 (C,) on the CPU; None if samples have no class."""


@runtime_checkable
class HasMemoryFormat(Protocol):
    """A loader of images whose memory format can be set before the first batch."""

    memory_format: torch.memory_format


class Dataset(Protocol):
    """A dataset before its samples are loaded, as `dataset._target_` returns it. May have `HasNotes.notes`."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """Properties of the data that models and tasks use, by keys of the dataset's YAML, such as num_classes.

        They replace null in the YAML; the dataset raises an error if another value differs from the data.
        """

    @property
    def description(self) -> str:
        """The samples as text for the plan, such as `10 classes, 3x32x32`."""

    @property
    def fingerprint(self) -> str:
        """Text that identifies the data: different data have different fingerprints."""

    def processor_spec(self) -> Mapping[str, Any]:
        """Return what a checkpoint stores, as JSON, to load raw input and to name outputs.

        `kind` is the dotted name of a `Processor`; the other entries are its arguments. Class names are `classes`.
        """

    def sample_batch(self, count: int) -> Batch:
        """Return `count` samples on the CPU of the shapes of real ones, for measurements before `loader` is called."""

    def loader(self, options: LoaderOptions) -> Loader:
        """Return a loader of the batches. Raises DataError if the data is missing or damaged."""


@dataclass(frozen=True)
class NoOptions:
    """Prediction options of a processor that has none."""


class Processor(Protocol):
    """Interface between raw input and a model: lists inputs, loads them, collates a batch, formats predictions.

    The constructor takes the checkpoint's `processor_spec`, which may be a stranger's: annotations state the allowed
    values, and ValueError reports a contradiction.
    """

    Options: type[Any]  # frozen dataclass: each field is a key of predict.yaml and a keyword of `Predictor.predict`

    def list_inputs(self, given: str) -> Iterable[str]:
        """List the sources that `input=` names, as a sequence where they are known. DataError if there are none."""

    def load(self, source: str) -> Tensor:
        """Load one source as a sample, without a batch dimension, on the CPU. Raises DataError if that fails."""

    def collate(self, samples: Sequence[Tensor], device: torch.device) -> Tensor:
        """Collate samples to the model's inputs (N, ...) on `device`."""

    def predict(self, model: nn.Module, inputs: Tensor, options: Any) -> list[dict[str, Any]]:
        """Return one prediction per input, for JSON. Called in inference mode, under the device's autocast."""

    def format_rows(
        self, sources: Sequence[str], predictions: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[str]:
        """Yield lines of a table, each as soon as its prediction arrives; `sources`, if known, give column widths.

        Sources may hold control codes: see `escape_control`.
        """

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random inputs (count, ...) of the shapes that `collate` returns, to compare an exported model on."""


class Axis(NamedTuple):
    """Dimension of a model's inputs whose size may differ from the training data's."""

    name: str  # shown by other tools, as `time`
    own: int | None  # size in the training data; None if it varies
    at_least: int = 1
    at_most: int | None = None


@runtime_checkable
class HasAxes(Protocol):
    """A `Processor` whose inputs may have other sizes than `random_inputs` returns, if the model allows."""

    def axes(self) -> Mapping[int, Axis]:
        """Return the axes by dimension, without the batch (dimension 0)."""


@runtime_checkable
class HasPortableSteps(Protocol):
    """A `Processor` that can describe its steps, so that an exported model can be used without this package."""

    def steps(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return `preprocess` and `postprocess` steps as JSON, each with an `op` that docs/export.md defines."""


@runtime_checkable
class ConvertsObjects(Protocol):
    """A `Processor` that takes Python objects in addition to files and texts."""

    def convert(self, value: object) -> Tensor:
        """Convert one object to a sample, as `load` does for a source. Raises DataError if that fails."""


@runtime_checkable
class HasNotes(Protocol):
    """A dataset or processor that reports what it guessed, dropped or changed while reading."""

    @property
    def notes(self) -> Sequence[str]:
        """One line for each change: what, how many, the key that decides it. `warning: ` may begin a line."""


@runtime_checkable
class HasKernels(Protocol):
    """An optimizer whose update functions can be compiled. The fused optimizers of torch need no compilation."""

    def compile_kernels(self, compile_function: Callable[[Any], Any]) -> None:
        """Replace each update function by `compile_function(function)`, which may return the function unchanged."""


@runtime_checkable
class MixesSamples(Protocol):
    """A dataset that may mix training samples (mixup, cutmix), so that targets become class probabilities (N, C)."""

    @property
    def mixing(self) -> Sequence[str]:
        """Keys of `augment` that are set and mix samples; empty if none does."""


@runtime_checkable
class InitsFromData(Protocol):
    """A model that initializes some of its weights from data."""

    def init_from_batch(self, inputs: Tensor) -> None:
        """Initialize weights from the first training batch. Called once before training, under no_grad."""


@runtime_checkable
class AdaptsStateDict(Protocol):
    """A model that can load published weights whose tensors have other names or layouts."""

    def adapt_state_dict(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the tensors under this model's names and in its layout; unknown tensors are returned unchanged.

        Raises:
            ValueError: the tensors do not fit this model; the message says why.
        """


class Task(Protocol):
    """Training objective: the loss, and metrics from named sums, which add exactly over batches and ranks.

    `metric_names` begin with "loss"; `monitor` is `val/` and one of them.
    """

    metric_names: tuple[str, ...]

    @property
    def lower_is_better(self) -> frozenset[str]:
        """Metrics for which lower is better. A task with `metric_specs` (`HasMetricSpecs`) does not need it."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean loss (scalar) and the model's outputs."""

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Return scalar sums over the batch by name, cheap enough for every training step.

        `loss_denominator` is what the loss is a mean over, such as samples or tokens; it weighs the micro-batches of an
        accumulated batch.
        """

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return metrics by name from `train_sums` added over batches (float64, on the CPU)."""

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Return all sums that `eval_metrics` needs, by name; each has the same shape for every batch."""

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return metrics by name from `eval_sums` added over a split; tables are nested lists."""


@runtime_checkable
class HasMetricSpecs(Protocol):
    """A task that declares, for each metric it reports, which direction is better, the unit and the format."""

    @property
    def metric_specs(self) -> Mapping[str, MetricSpec]:
        """Specs by metric name. Prefer a class attribute: a search reads it before the task is built."""


class Listener(Protocol):
    """Observes a run: receives every event in order and changes nothing."""

    def __call__(self, event: object) -> None:
        """Handle one event of `bigmodel.events`."""

    def close(self) -> None:
        """Release resources. Called once when the run ends, for whatever reason."""
