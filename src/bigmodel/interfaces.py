"""What the house asks of a task, a dataset, a kind of input, a listener. Anything with these methods will do.

Images, tables, waves, text: nothing outside the leaves knows which. A sample is one tensor in and one tensor out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bigmodel.metric_spec import MetricSpec


class Batch(NamedTuple):
    """Samples that already lie on the device: `inputs` (N, ...) and `targets` (N, ...), each one tensor of any type.

    Sequences of unequal length are filled up at the end, whole numbers with -1 and others with NaN, so that their
    lengths are in the tensor itself: see `bigmodel.padding`.
    `samples` (N,), int64 on the CPU, are their numbers in the data, where that is known.
    """

    inputs: Tensor
    targets: Tensor
    sample_ids: Tensor | None = None

    def microbatches(self, count: int) -> Sequence[Batch]:
        """At most `count` near-equal parts, in order."""
        if count == 1:
            return (self,)
        inputs, targets = self.inputs.chunk(count), self.targets.chunk(count)
        samples = [None] * len(inputs) if self.sample_ids is None else self.sample_ids.chunk(count)
        return [Batch(*part) for part in zip(inputs, targets, samples, strict=True)]


@dataclass(frozen=True)
class LoaderOptions:
    """How a dataset is to be read.

    Where it is `balanced`, every class comes equally often in an epoch; ConfigError where there are none.
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
    """Batches as a pure function of (seed, step). Placement, order and augmentation are its own affair."""

    @property
    def describe_placement(self) -> str:
        """Where the training samples lie and why, in words for the plan."""

    @property
    def uses_workers(self) -> bool:
        """Whether processes of their own read the training samples, so that the loop may wait for them."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the training samples."""

    @property
    def splits(self) -> Mapping[str, int]:
        """Samples in each of train, val and test that exists."""

    def train_batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps first to last - 1."""

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """Every sample of a split exactly once, not augmented."""


@runtime_checkable
class CountsClasses(Protocol):
    """`Loader` that can be balanced, and can tell how large the classes are."""

    def class_counts(self) -> Tensor | None:
        """Training samples of each class, int64 (C,) on the CPU; None where samples have no class each."""


@runtime_checkable
class HasMemoryFormat(Protocol):
    """A loader of images whose layout in memory can be chosen before the first batch."""

    memory_format: torch.memory_format


class Dataset(Protocol):
    """What a dataset's function returns.

    It may have `notes`, a sequence of lines for the plan and the start of a run: what it guessed, dropped or changed,
    each whole in itself; some begin with `warning: `.
    """

    @property
    def properties(self) -> Mapping[str, Any]:
        """What models and tasks may ask of the data, by keys of its YAML, as num_classes or input_shape.

        They take the place of what the YAML says, so a key may be null there; what is not null the dataset holds
        against the data.
        """

    @property
    def description(self) -> str:
        """The samples in words for the plan, as `10 classes, 3x32x32`."""

    @property
    def fingerprint(self) -> str:
        """A text that differs for other data."""

    def processor_spec(self) -> Mapping[str, Any]:
        """What a checkpoint must carry, as JSON, to prepare raw input and to name outputs.

        `kind` is the dotted name of a `Processor`, whose arguments are the other entries; `classes` are named as such.
        """

    def sample_batch(self, count: int) -> Batch:
        """So many samples on the CPU that cost no more and no less than true ones: to measure with, before `open`."""

    def loader(self, how: LoaderOptions) -> Loader:
        """Its batches. Raises DataError where the data is missing or damaged."""


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
    """A dataset, or a kind of input, that guessed, dropped or changed something in reading, which users are told."""

    @property
    def notes(self) -> Sequence[str]:
        """One line each: what, how many, and the setting that decides it. The plan shows them, and a run's start."""


@runtime_checkable
class HasKernels(Protocol):
    """An optimizer with functions of its own to compile; the fused ones of torch are one kernel already."""

    def compile_kernels(self, compile_function: Callable[[Any], Any]) -> None:
        """Replace its functions of tensors by what `compile_function` makes of them: themselves, or compiled ones."""


@runtime_checkable
class MixesSamples(Protocol):
    """A dataset whose training samples may be mixed with each other, so that class numbers become odds (N, C)."""

    @property
    def mixing(self) -> Sequence[str]:
        """The settings that do so, by the names they have in `augment`; empty if none does."""


@runtime_checkable
class InitsFromData(Protocol):
    """A model that computes some of its first weights from data."""

    def init_from_batch(self, inputs: Tensor) -> None:
        """Take the inputs of the first training batch; called once, before training, without gradients."""


@runtime_checkable
class AdaptsStateDict(Protocol):
    """A model for which others have published weights under names of their own."""

    def adapt_state_dict(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Theirs by this model's names and in its layout; those that are not theirs as they are.

        Raises:
            ValueError: they cannot be brought into this model, and why.
        """


class Task(Protocol):
    """What a model is trained for: the loss, and metrics from named sums, which add up exactly over batches and ranks.

    `metric_names` begin with "loss"; `monitor` is `val/` and one of them.
    """

    metric_names: tuple[str, ...]

    @property
    def lower_is_better(self) -> frozenset[str]:
        """The metrics that are better low; `HasMetricSpecs` says more, and a task that has it needs no such names."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss (scalar) and the model's outputs."""

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Sums over the batch by name, scalars, cheap enough for every training step.

        `loss_denominator` is what the loss is a mean over, such as samples or tokens; it weighs the micro-batches of an
        accumulated batch.
        """

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics by name, from `train_sums` added up over batches (float64, on the CPU)."""

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Sums over the batch by name, of any shape that is the same for every batch: all that `eval_metrics` needs."""

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        """Metrics by name, from `eval_sums` added up over a split; tables as nested lists."""


@runtime_checkable
class HasMetricSpecs(Protocol):
    """A task that declares, for each metric it reports, which direction is better, the unit and the format."""

    @property
    def metric_specs(self) -> Mapping[str, MetricSpec]:
        """By name; a class attribute lets a search know them before anything is built."""


class Listener(Protocol):
    """Observes a run. It gets every event in order and changes nothing."""

    def __call__(self, event: object) -> None:
        """One event of `bigmodel.events`."""

    def close(self) -> None:
        """The run is over, however it ended."""
