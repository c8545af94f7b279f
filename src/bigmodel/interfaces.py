"""Protocols for tasks, datasets, loaders, processors and listeners. Any object with these methods works; there is no
base class.

Only the leaves know whether samples are images, tables, waves or text: a sample is one tensor in and one tensor out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bigmodel.metric_spec import MetricSpec


class Batch(NamedTuple):
    """Samples on the device: `inputs` (N, ...) and `targets` (N, ...), each one tensor of any dtype.

    Sequences of unequal length are padded at the end, integers with -1 and floats with NaN, so that their lengths are
    in the tensor itself: see `bigmodel.padding`. `sample_ids` (N,), int64 on the CPU, are the samples' indices in the
    data, where known.
    """

    inputs: Tensor
    targets: Tensor
    sample_ids: Tensor | None = None

    def microbatches(self, count: int) -> Sequence[Batch]:
        """Split into at most `count` near-equal micro-batches, in order."""
        if count == 1:
            return (self,)
        inputs, targets = self.inputs.chunk(count), self.targets.chunk(count)
        samples = [None] * len(inputs) if self.sample_ids is None else self.sample_ids.chunk(count)
        return [Batch(*part) for part in zip(inputs, targets, samples, strict=True)]


@dataclass(frozen=True)
class LoaderOptions:
    """How a dataset is to be read. With `balanced`, every class comes equally often in an epoch."""

    device: torch.device
    batch_size: int
    seed: int
    resident_bytes: float = 4e9
    workers: int = 0
    limit_batches: int | None = None
    overfit_batch: bool = False
    balanced: bool = False


class Loader(Protocol):
    """Batches as a pure function of (seed, step). The loader decides placement, order and augmentation."""

    @property
    def describe_placement(self) -> str:
        """Where the training samples lie and why, as text for the plan."""

    @property
    def uses_workers(self) -> bool:
        """Whether worker processes read the training samples, so that the loop may have to wait for them."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the training samples."""

    @property
    def splits(self) -> Mapping[str, int]:
        """Number of samples of each split there is: train, val, test."""

    def train_batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of steps `first` to `last` - 1."""

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """Yield every sample of a split exactly once, not augmented."""


@runtime_checkable
class CountsClasses(Protocol):
    """A `Loader` that can be balanced, and that knows the sizes of the classes."""

    def class_counts(self) -> Tensor | None:
        """Return the number of training samples of each class, int64 (C,) on the CPU; None without classes."""


@runtime_checkable
class HasMemoryFormat(Protocol):
    """A loader of images whose memory format can be set before the first batch."""

    memory_format: torch.memory_format


class Dataset(Protocol):
    """Samples by split, opened by a function that a dataset's YAML names.

    It may have `notes`: lines about what was guessed, dropped or changed, for the plan and the start of a run; some
    begin with `warning: `.
    """

    @property
    def properties(self) -> Mapping[str, Any]:
        """Properties of the data by dataset key, such as `num_classes` or `input_shape`.

        A key that is null in YAML is filled in; the dataset checks any other value against the data.
        """

    @property
    def description(self) -> str:
        """The samples as text for the plan, such as `10 classes, 3x32x32`."""

    @property
    def fingerprint(self) -> str:
        """A text that differs for other data."""

    def processor_spec(self) -> Mapping[str, Any]:
        """Return what a checkpoint carries, as JSON, to prepare raw input and to name outputs.

        `kind` is the dotted name of a `Processor`; the other entries are its arguments, `classes` among them if there
        are any.
        """

    def sample_batch(self, count: int) -> Batch:
        """Return `count` CPU samples with the shapes and dtypes of real ones, to measure cost without a loader."""

    def loader(self, options: LoaderOptions) -> Loader:
        """Open the data. Raises DataError where it is missing or damaged."""


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
    """A dataset or processor that guessed, dropped or changed something while reading, which users are told."""

    @property
    def notes(self) -> Sequence[str]:
        """One line for each: what, how many, and the setting that decides it. Shown in the plan and at the start of a
        run.
        """


@runtime_checkable
class HasKernels(Protocol):
    """An optimizer with functions of its own to compile; the fused ones of torch are one kernel already."""

    def compile_kernels(self, compile_function: Callable[[Any], Any]) -> None:
        """Replace functions of tensors by `compile_function` of them, which compiles them or returns them unchanged."""


@runtime_checkable
class MixesSamples(Protocol):
    """A dataset that may mix training samples with each other, so that targets become class probabilities (N, C)."""

    @property
    def mixing(self) -> Sequence[str]:
        """Names of the settings under `augment` that mix samples; empty if none is on."""


@runtime_checkable
class InitsFromData(Protocol):
    """A model that computes some of its initial weights from data."""

    def init_from_batch(self, inputs: Tensor) -> None:
        """Initialize from the inputs of the first training batch; called once, before training, without gradients."""


@runtime_checkable
class AdaptsStateDict(Protocol):
    """A model with published weights under other names."""

    def adapt_state_dict(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Map a published state dict to this model's names and layout; return any other unchanged. ValueError if it
        does not fit.
        """


class Task(Protocol):
    """Training objective: a loss, and metrics from named sums, which add up exactly over batches and ranks.

    `metric_names` begin with "loss"; `monitor` is `val/` and one of them.
    """

    metric_names: tuple[str, ...]

    @property
    def metric_specs(self) -> Mapping[str, MetricSpec]:
        """Better direction, unit and format by metric; as a class attribute, known before anything is built."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean loss (scalar) and the model's outputs."""

    def train_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Return sums over the batch by name: scalars, cheap enough for every training step.

        `loss_denominator` is what the loss is a mean over, such as samples or tokens; it weights micro-batches under
        gradient accumulation.
        """

    def train_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return metrics by name, from `train_sums` added up over batches (float64, on the CPU)."""

    def eval_sums(self, loss: Tensor, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Return sums over the batch by name, each of a shape that is the same for every batch."""

    def eval_metrics(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return metrics by name, from `eval_sums` added up over a split; tables as nested lists."""


@runtime_checkable
class Listener(Protocol):
    """Observer of a run. It receives every event in order and changes nothing."""

    def __call__(self, event: object) -> None:
        """Receive an event of `bigmodel.events`."""

    def close(self) -> None:
        """Called at the end of a run, however it ended."""
