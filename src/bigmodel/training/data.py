"""Open the dataset and the loader of a run, and set every value of its config that follows from the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate
from bigmodel.config.old_methods import check_method_names
from bigmodel.config.schema import Train
from bigmodel.errors import ConfigError, MissingColumnError
from bigmodel.formatting import escape_control
from bigmodel.interfaces import CountsClasses, Dataset, Loader, LoaderOptions
from bigmodel.runtime.device import Device
from bigmodel.tasks.number_defaults import unfit_target
from bigmodel.training.adjustments import (
    fill_defaults,
    set_class_weights,
    set_device_counts,
    set_num_outputs,
    set_paths,
)


@dataclass(frozen=True)
class RunData:
    """The data of a run, and the config with all values that it determines; `notes` say which were set."""

    config: Config
    dataset: Dataset
    loader: Loader
    notes: Sequence[str]


def open_data(config: Config, device: Device, report: Callable[[str], object]) -> RunData:
    """Open a run's dataset and loader. Values that nobody set are read from the data; `report` that it is read.

    Raises:
        ConfigError: the config and the data do not go together.
        DataError: the data is missing or damaged.
    """
    values = config.values
    defaults, default_notes = fill_defaults(values)
    paths, path_notes = set_paths(values)
    report("reading data")
    dataset = _open_dataset(config, defaults | paths)
    properties = {f"dataset.{key}": value for key, value in dataset.properties.items() if key in values["dataset"]}
    ranks, rank_notes = set_device_counts(values, device)
    outputs, output_notes = set_num_outputs(config, dataset)
    loader, lowered = _open_loader(
        dataset, device, Train(**values), int(defaults.get("batch_size", values["batch_size"]))
    )
    lowered_notes = [f"{key}={value}: the data has only so many training samples" for key, value in lowered.items()]
    weights, weight_notes = set_class_weights(values, dataset, loader)
    changes = defaults | paths | properties | ranks | outputs | lowered | weights
    settings = [*config.notes, *default_notes, *path_notes, *rank_notes, *lowered_notes]
    notes = [*settings, *getattr(dataset, "notes", ()), *output_notes, *weight_notes]
    return RunData(config.with_values(changes), dataset, loader, [escape_control(note) for note in notes])


def _open_dataset(config: Config, changes: Mapping[str, Any]) -> Dataset:
    """Build the dataset of the config with these changes by dotted key.

    If its files lack a column, the message names the key that asks for the column.
    """
    prefix = "dataset."
    changed = {key.removeprefix(prefix): value for key, value in changes.items() if key.startswith(prefix)}
    node = {**config.values["dataset"], **changed}
    try:
        dataset: Dataset = instantiate("dataset", node, config.trust)
    except MissingColumnError as error:
        columns = {key: [*value] if isinstance(value, list | tuple) else [value] for key, value in node.items()}
        keys = [f"{prefix}{key}" for key, named in columns.items() if error.column in named]
        raise MissingColumnError(error.place, error.column, error.reason, keys) from error
    if (problem := unfit_target(config.values, dataset.properties)) is not None:
        raise ConfigError(problem)
    return dataset


def _open_loader(dataset: Dataset, device: Device, settings: Train, batch_size: int) -> tuple[Loader, dict[str, Any]]:
    """Open the dataset's loader. A default batch size is lowered to the number of training samples.

    Raises:
        ConfigError: the batch size, the micro-batches or the sampler do not go with the data.
    """
    pieces = _count_pieces(settings, device, batch_size)
    options = LoaderOptions(
        device.torch_device,
        batch_size,
        settings.seed,
        resident_bytes=settings.resident_gb * 1e9,
        workers=settings.workers,
        limit_batches=settings.limit_batches,
        overfit_batch=settings.overfit_batch,
        balanced=settings.sampler == "balanced",
    )
    loader, lowered = dataset.loader(options), {}
    check_method_names("loader", loader)
    samples = loader.splits["train"]
    if settings.batch_size is None and pieces <= samples < batch_size:
        lowered["batch_size"] = samples
        loader = dataset.loader(replace(options, batch_size=samples))  # reads nothing: no batch was taken
    elif batch_size > samples:
        raise ConfigError(
            f"batch_size: {batch_size} exceeds the {samples} training samples; set batch_size={samples} or less"
        )
    if options.balanced and not isinstance(loader, CountsClasses):
        raise ConfigError("sampler: this data cannot be balanced; set sampler=shuffled")
    return loader, lowered


def _count_pieces(settings: Train, device: Device, batch_size: int) -> int:
    """Return into how many micro-batches all ranks together split a batch.

    Raises:
        ConfigError: it has fewer samples, or the ranks cannot have equally many pieces.
    """
    if settings.pieces and settings.pieces % device.count:
        raise ConfigError(
            f"device.count: {device.count} ranks cannot take as many of pieces={settings.pieces} each; use a power of "
            f"two up to {settings.pieces}"
        )
    pieces = settings.accumulate * (settings.pieces or device.count)
    if pieces > batch_size:
        key, parts = "accumulate", f"{settings.accumulate} micro-batches"
        if settings.pieces:
            key, parts = "pieces", f"{settings.pieces} pieces" + (f" of {parts}" if settings.accumulate > 1 else "")
        elif device.count > 1:
            key, parts = "device.count", f"{device.count} ranks" + (f" of {parts}" if settings.accumulate > 1 else "")
        raise ConfigError(
            f"{key}: {parts} need batch_size >= {pieces}, got {batch_size}; lower {key} or raise batch_size"
        )
    return pieces
