"""Build a run from a checked config: device, dataset, loader, task, model, optimizers, and how often things happen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate, without_pretrained
from bigmodel.config.old_methods import check_method_names
from bigmodel.config.schema import Train
from bigmodel.datasets.files.locations import resolve_paths
from bigmodel.errors import ConfigError
from bigmodel.formatting import escape_control
from bigmodel.interfaces import CountsClasses, Dataset, HasMemoryFormat, InitsFromData, Loader, LoaderOptions, Task
from bigmodel.optim.groups import scale_lrs
from bigmodel.runtime.batch_norm import share_batch_norms
from bigmodel.runtime.device import Device
from bigmodel.runtime.precision import choose_precision
from bigmodel.tasks.number_defaults import unfit_target
from bigmodel.training.adjustments import (
    fill_defaults,
    set_class_weights,
    set_num_outputs,
    warn_slow_ema,
)
from bigmodel.training.checks import (
    check_all_trained,
    check_forward,
    check_model_matches_data,
    check_monitor,
    check_soft_targets,
)
from bigmodel.training.loop import LoopOptions
from bigmodel.training.state import TrainState

MAX_STEPS = 1e15


@dataclass
class TrainingRun:
    """All that a run is made of, built but not yet trained."""

    config: Config
    settings: Train
    device: Device
    dataset: Dataset
    loader: Loader
    state: TrainState
    loop_options: LoopOptions
    init_report: Sequence[str]  # where the initial weights came from, a line each
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()  # what was set by default, and what the dataset guessed, dropped or changed


def build_run(
    config: Config, load_initial_weights: bool = True, report: Callable[[str], object] = lambda text: None
) -> TrainingRun:
    """Build device, dataset, loader, task, model and optimizers from a checked config; `report` what takes a while.

    With `load_initial_weights=False`, skip pretrained files and data-dependent initialization: a checkpoint supplies
    the weights, and the file may be gone.

    Raises:
        ConfigError: parts do not go together.
        DataError: the data is missing or damaged.
    """
    trust = config.trust
    device: Device = instantiate("device", config.values["device"], trust)
    device.configure_torch()
    changes, defaults = fill_defaults(config.values)
    notes = [*config.notes, *defaults]
    paths = resolve_paths(config.values["dataset"], config.values["data_dir"])
    changes |= paths
    notes += [f"{key}={value}, in data_dir" for key, value in paths.items()]
    report("reading data")
    dataset: Dataset = instantiate("dataset", _changed(config.values, "dataset", changes), trust)
    if (problem := unfit_target(config.values, dataset.properties)) is not None:
        raise ConfigError(problem)
    known = config.values["dataset"]
    changes |= {f"dataset.{key}": value for key, value in dataset.properties.items() if key in known}
    changes["device.threads"] = device.threads
    if device.count != config.values["device"].get("count", 1):
        changes["device.count"] = device.count
        notes.append(f"device.count={device.count}: as many ranks take part")
    outputs, output_notes = set_num_outputs(config, dataset)
    changes |= outputs

    loader, lowered = _open_loader(
        dataset, device, config.values, changes.get("batch_size", config.values["batch_size"])
    )
    changes |= lowered
    notes += [f"{key}={value}: the data has only so many training samples" for key, value in lowered.items()]
    weights, weight_notes = set_class_weights(config.values, dataset, loader)
    config = config.with_values(changes | weights)
    values, settings = config.values, Train(**config.values)
    check_model_matches_data(config, dataset)
    if settings.epochs * loader.steps_per_epoch > MAX_STEPS:
        raise ConfigError(f"epochs: {settings.epochs:g} epochs are more than {MAX_STEPS:g} steps")

    task: Task = instantiate("task", values["task"], trust)
    check_monitor(settings.monitor, task)
    check_soft_targets(dataset, task)
    report("building the model")
    device.seed_rng(settings.seed, "initialisation")
    node = values["model"] if load_initial_weights else without_pretrained(values["model"])
    model = instantiate("model", node, trust).to(device.torch_device)
    if load_initial_weights:
        check_all_trained(model, settings)
        check_forward(model, task, dataset.sample_batch(min(2, loader.splits["train"])), device, config)
    choose_precision(device, model, task, dataset.sample_batch)
    if device.channels_last is True and isinstance(loader, HasMemoryFormat):
        loader.memory_format = torch.channels_last
    config = config.with_values({"device.precision": device.precision, "device.channels_last": device.channels_last})
    init_report = _initialize(model, settings, device, loader, trust, load_initial_weights)
    if device.count > 1:
        notes += _prepare_for_ranks(model, device, settings.accumulate)
    optimizers, lr_notes = build_optimizers(config, model)
    steps = max(1, round(settings.epochs * loader.steps_per_epoch)) if settings.epochs else 0
    state = TrainState(
        model=model,
        task=task,
        optimizers=optimizers,
        schedule=instantiate("schedule", values["schedule"], trust),
        device=device,
        seed=settings.seed,
        steps=steps,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        ema=settings.ema,
    )
    notes = [*map(escape_control, (*notes, *getattr(dataset, "notes", ()))), *output_notes, *weight_notes]
    return TrainingRun(
        config=config,
        settings=settings,
        device=device,
        dataset=dataset,
        loader=loader,
        state=state,
        loop_options=_loop_options(settings, loader),
        init_report=[*init_report, *lr_notes],
        warnings=warn_slow_ema(settings.ema, steps),
        notes=notes,
    )


def _changed(values: Mapping[str, Any], group: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's node with the changes of its keys."""
    prefix = f"{group}."
    return {**values[group], **{key.removeprefix(prefix): v for key, v in changes.items() if key.startswith(prefix)}}


def _open_loader(
    dataset: Dataset, device: Device, values: Mapping[str, Any], batch_size: Any
) -> tuple[Loader, dict[str, Any]]:
    """Open the dataset's loader. A batch size that nobody set is lowered to the number of training samples.

    Raises:
        ConfigError: the batch size, the micro-batches or the sampler do not go with the data.
    """
    settings = Train(**values)
    size, lowered = int(batch_size), {}
    pieces = settings.accumulate * device.count
    if pieces > size:
        key, parts = "accumulate", f"{settings.accumulate} micro-batches"
        if device.count > 1:
            key, parts = "device.count", f"{device.count} ranks" + (f" of {parts}" if settings.accumulate > 1 else "")
        raise ConfigError(f"{key}: {parts} need batch_size >= {pieces}, got {size}; lower {key} or raise batch_size")
    options = LoaderOptions(
        device.torch_device,
        size,
        settings.seed,
        resident_bytes=settings.resident_gb * 1e9,
        workers=settings.workers,
        limit_batches=settings.limit_batches,
        overfit_batch=settings.overfit_batch,
        balanced=settings.sampler == "balanced",
    )
    loader = dataset.loader(options)
    check_method_names("loader", loader)
    samples = loader.splits["train"]
    if settings.batch_size is None and pieces <= samples < size:
        lowered["batch_size"] = samples
        loader = dataset.loader(replace(options, batch_size=samples))  # reads nothing: no batch was taken
    elif size > samples:
        raise ConfigError(
            f"batch_size: {size} exceeds the {samples} training samples; set batch_size={samples} or less"
        )
    if options.balanced and not isinstance(loader, CountsClasses):
        raise ConfigError("sampler: this data cannot be balanced; set sampler=shuffled")
    return loader, lowered


def _initialize(
    model: nn.Module, settings: Train, device: Device, loader: Loader, trust: Sequence[str], load_initial_weights: bool
) -> list[str]:
    """Initialize a model from the first batch, then as `init` says; return a line for each thing done."""
    if load_initial_weights and isinstance(model, InitsFromData):
        device.seed_rng(settings.seed, "from data")
        with torch.no_grad():
            model.init_from_batch(next(loader.train_batches(0, 1)).inputs)
    device.seed_rng(settings.seed, "init")
    if settings.init is None:
        return []
    report: list[str] = instantiate(
        "init", settings.init, trust, model=model, fresh=load_initial_weights, epochs=settings.epochs
    )
    return report


def _prepare_for_ranks(model: nn.Module, device: Device, accumulate: int) -> list[str]:
    """Give all ranks the same weights and shared batch norms; return lines about it.

    Raises:
        ConfigError: ranks may have different numbers of micro-batches, and batch norms would wait for the missing ones.
    """
    device.world.broadcast(model.state_dict().values())  # they are the same, unless a model draws by itself
    num_norms = share_batch_norms(model)
    if num_norms and accumulate > 1:
        raise ConfigError(f"accumulate: batch norms over {device.count} ranks need accumulate=1, got {accumulate}")
    return [f"batch norms ({num_norms}): mean and variance over the pieces of all ranks"] if num_norms else []


def build_optimizers(config: Config, model: nn.Module, **changed: Any) -> tuple[list[torch.optim.Optimizer], list[str]]:
    """Build the optimizers of the trained parameters, with `changed` values in the node; and lines about their rates.

    Raises:
        ConfigError: optimizer and model do not fit together, or a pattern of `lr_scale` matches nothing.
    """
    node = {**config.values["optim"], **changed}
    built = instantiate("optim", node, config.trust, model=model, params=model.parameters())
    optimizers = built if isinstance(built, list) else [built]
    factors = config.values.get("lr_scale")
    try:
        return optimizers, [f"lr_scale: {scale_lrs(optimizers, model, factors)}"] if factors else []
    except ValueError as error:
        raise ConfigError(f"lr_scale: {error}") from error


def _loop_options(settings: Train, loader: Loader) -> LoopOptions:
    if "val" not in loader.splits and settings.patience is not None:
        raise ConfigError("patience: needs validation data; set dataset.val_fraction")
    return LoopOptions(
        log_every=_interval_in_steps(settings.log_every, loader.steps_per_epoch),
        evaluate_every=_interval_in_steps(settings.evaluate_every, loader.steps_per_epoch),
        save_every=_interval_in_steps(settings.save_every, loader.steps_per_epoch),
        monitor=settings.monitor.partition("/")[2] if "val" in loader.splits else None,
        patience=settings.patience,
    )


def _interval_in_steps(interval: str, steps_per_epoch: int) -> int:
    number = float(interval.rstrip("stepoch "))
    return max(1, math.ceil(number * (steps_per_epoch if "epoch" in interval else 1)))
