"""The keys at the top of each command's config and the values they may take. `conf/<command>.yaml` has the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from bigmodel.constraints import (
    Bounds,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    ProperFraction,
    Seed,
    StepsOrEpochs,
)

Node = Mapping[str, Any]
NOT_GIVEN = "???"  # a key that must be set, in YAML


@dataclass(frozen=True)
class Train:
    """`bigmodel-train`. The groups are nodes with a `_target_`, built where they are needed."""

    model: Mapping[str, Any]
    optim: Mapping[str, Any]
    schedule: Mapping[str, Any]
    task: Mapping[str, Any]
    dataset: Mapping[str, Any]
    device: Mapping[str, Any]
    seed: Seed
    epochs: NonNegative
    batch_size: PositiveInt | None
    accumulate: PositiveInt
    clip_norm: Positive | None
    ema: ProperFraction | None
    monitor: str
    patience: PositiveInt | None
    log_every: StepsOrEpochs
    evaluate_every: StepsOrEpochs
    save_every: StepsOrEpochs
    keep: Annotated[int, Bounds(at_least=2)]
    limit_batches: PositiveInt | None
    overfit_batch: bool
    resident_gb: NonNegative
    workers: NonNegativeInt
    data_dir: str
    output_dir: str
    dry_run: bool
    loss: Mapping[str, Any] | None = None  # loss=null for a task that has its own
    listeners: Mapping[str, Any] = field(default_factory=dict)
    profile: bool = False  # the config.yaml of an older run has no such key, nor the next
    init: Mapping[str, Any] | None = None
    lr_scale: Mapping[str, Positive] | None = None
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    pieces: Literal[2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] | None = None

    @property
    def num_microbatches(self) -> int:
        """Micro-batches of an update in one process."""
        return self.accumulate * (self.pieces or 1)


@dataclass(frozen=True)
class Evaluate:
    """`bigmodel-evaluate`."""

    run: str
    split: Literal["train", "val", "test"]
    batch_size: PositiveInt
    data_dir: str | None
    device: Mapping[str, Any]
    format: Literal["table", "json"]


@dataclass(frozen=True)
class Predict:
    """`bigmodel-predict`. All other keys at the top are options of the run's processor: see `processor_options`."""

    run: str
    input: str
    batch_size: PositiveInt
    device: Mapping[str, Any]
    format: Literal["table", "json"]
    encoding: str | None = None
    chat: bool = False
    stream: bool = False


@dataclass(frozen=True)
class Export:
    """`bigmodel-export`."""

    run: str
    format: Literal["onnx", "torch_export", "safetensors", "hub", "peft"]
    output: str | None
    tolerance: Positive
    opset: NonNegativeInt | None


def command_keys(tree: Mapping[str, Any], command: str) -> Mapping[str, Any]:
    """Return the part of a config that the command's dataclass describes: all but a processor's options."""
    if command != "predict":
        return tree
    names = {one.name for one in fields(Predict)}
    return {key: value for key, value in tree.items() if key in names}


def processor_options(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in a config of `bigmodel-predict`; null means that an option is not given."""
    return _without_null({key: value for key, value in tree.items() if key not in command_keys(tree, "predict")})


def _without_null(tree: Mapping[str, Any]) -> dict[str, Any]:
    nested = {key: _without_null(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}
