"""From a checked config to the parts of a run: device, data, model, task, optimizer, and how often things happen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate, without_pretrained
from bigmodel.config.location import fitting_models
from bigmodel.config.schema import Train
from bigmodel.datasets.files.locations import resolve_paths
from bigmodel.errors import BigmodelError, ConfigError
from bigmodel.formatting import escape_control, first_line
from bigmodel.interfaces import Batch, CountsClasses, Dataset, InitsFromData, Loader, LoaderOptions, MixesSamples, Task
from bigmodel.metric_spec import declared_specs
from bigmodel.optim.groups import scale_lrs
from bigmodel.runtime.device import Device
from bigmodel.runtime.precision import choose_precision
from bigmodel.tasks.number_defaults import unfit_target
from bigmodel.training.adjustments import (
    DEFAULT_BATCH_SIZE,
    fill_defaults,
    set_class_weights,
    set_num_outputs,
    warn_slow_ema,
)
from bigmodel.training.error_translation import translate_nondeterminism_errors, translate_oom
from bigmodel.training.loop import LoopOptions
from bigmodel.training.state import TrainState

MAX_STEPS = 1e15
STATELESS_PACKAGES = {"bigmodel", "torch", "torchvision"}  # but for their buffers


@dataclass
class TrainingRun:
    """All that a run is made of, built but not yet trained."""

    config: Config
    settings: Train
    device: Device
    dataset: Dataset
    data: Loader
    job: TrainState
    plan: LoopOptions
    init_report: Sequence[str]  # where the first weights came from, in words
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()  # what settings nobody made became, and what the dataset guessed, dropped or changed


def build_run(config: Config, load_initial_weights: bool = True) -> TrainingRun:
    """Build device, data, model, task and optimizer from the config, and settle what only the data can tell.

    A run that is not `fresh` takes its weights from a checkpoint, not from the file of pretrained ones, which may be
    gone, nor from the data.

    Raises:
        ConfigError: parts do not fit together; all reasons at once.
        DataError: the data is missing or damaged.
    """
    nobody_set_it = config.values["batch_size"] is None
    config, adjusted = fill_defaults(config)
    tree, trust = config.values, config.trust
    device: Device = instantiate("device", tree["device"], trust)
    device.configure_torch()
    if moved := resolve_paths(tree["dataset"], tree["data_dir"]):
        config = config.with_values(moved)
        adjusted += [f"{key}={value}, in data_dir" for key, value in moved.items()]
        tree = config.values
    dataset: Dataset = instantiate("dataset", tree["dataset"], trust)
    if (unfit := unfit_target(tree, dataset.properties)) is not None:
        raise ConfigError(unfit)
    facts = {f"dataset.{key}": value for key, value in dataset.properties.items() if key in tree["dataset"]}
    config = config.with_values({**facts, "device.threads": device.threads})
    config, told = set_num_outputs(config, dataset)
    tree, settings = config.values, Train(**config.values)
    batch_size = settings.batch_size or DEFAULT_BATCH_SIZE
    if settings.accumulate > batch_size:
        raise ConfigError(f"accumulate: a batch of {batch_size} has no {settings.accumulate} pieces")
    _check_model_matches_data(config, dataset)
    how = LoaderOptions(
        device.torch_device,
        batch_size,
        settings.seed,
        resident_bytes=settings.resident_gb * 1e9,
        workers=settings.workers,
        limit_batches=settings.limit_batches,
        overfit_batch=settings.overfit_batch,
        balanced=settings.sampler == "balanced",
    )
    data = dataset.loader(how)
    size = data.splits["train"]
    if nobody_set_it and settings.accumulate <= size < batch_size:
        adjusted.append(f"batch_size={size}, not {batch_size}: there are no more training samples")
        config = config.with_values({"batch_size": size})
        tree, settings, batch_size = config.values, Train(**config.values), size
        how = replace(how, batch_size=size)
        data = dataset.loader(how)
    if how.balanced and not isinstance(data, CountsClasses):
        raise ConfigError("sampler: this data cannot be balanced; set sampler=shuffled")
    config, weighed = set_class_weights(config, dataset, data)
    tree = config.values
    task: Task = instantiate("task", tree["task"], trust)
    _check_monitor(settings.monitor, task)
    _check_soft_targets(dataset, task)
    if batch_size > size:
        raise ConfigError(f"batch_size: {batch_size} is more than the {size} training samples")
    if settings.epochs * data.steps_per_epoch > MAX_STEPS:
        raise ConfigError(f"epochs: {settings.epochs:g} epochs are more than {MAX_STEPS:g} steps")
    device.seed_rng(settings.seed, "initialisation")
    node = dict(tree["model"]) if load_initial_weights else without_pretrained(tree["model"])
    model = instantiate("model", node, trust).to(device.torch_device)
    if load_initial_weights and not settings.epochs:
        _check_all_trained(model, settings)
    if load_initial_weights:
        _check_forward(model, task, dataset.sample_batch(min(2, batch_size)), device, config)
    choose_precision(device, model, task, dataset.sample_batch)
    if device.channels_last is True:
        data = dataset.loader(replace(how, channels_last=True))  # opening reads nothing yet
    config = config.with_values({"device.precision": device.precision, "device.channels_last": device.channels_last})
    if load_initial_weights and isinstance(model, InitsFromData):
        device.seed_rng(settings.seed, "from data")
        with torch.no_grad():
            model.init_from_batch(next(data.train_batches(0, 1)).inputs)
    device.seed_rng(settings.seed, "init")
    notes = (
        []
        if settings.init is None
        else instantiate("init", settings.init, trust, model=model, fresh=load_initial_weights, epochs=settings.epochs)
    )
    optimizers, scaled = build_optimizers(config, model)
    steps = max(1, round(settings.epochs * data.steps_per_epoch)) if settings.epochs else 0
    job = TrainState(
        model=model,
        task=task,
        optimizers=optimizers,
        schedule=instantiate("schedule", tree["schedule"], trust),
        device=device,
        seed=settings.seed,
        steps=steps,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        ema=settings.ema,
    )
    plan = _loop_options(settings, data)
    told = [*map(escape_control, (*adjusted, *getattr(dataset, "notes", ()))), *told, *weighed]
    slow = warn_slow_ema(settings.ema, steps)
    return TrainingRun(config, settings, device, dataset, data, job, plan, [*notes, *scaled], slow, told)


def build_optimizers(config: Config, model: nn.Module, **changed: Any) -> tuple[list[torch.optim.Optimizer], list[str]]:
    """The optimizers of what is trained, but for what is `changed` in the node, and lines about their rates.

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


def _check_all_trained(model: nn.Module, settings: Train) -> None:
    """ConfigError where nothing is to be trained and `model.pretrained` lacks tensors, unless that is asked for."""
    untrained, init = getattr(model, "untrained", None), settings.init or {}
    if untrained and not init.get("from") and init.get("incomplete", "refuse") == "refuse":
        raise ConfigError(
            f"epochs: 0 would test {len(untrained)} tensors that model.pretrained lacks, as {untrained[0]}; "
            "train them, or set init.incomplete=test"
        )


def _check_model_matches_data(config: Config, dataset: Dataset) -> None:
    """ConfigError if the model is told something of the data that the data is not, or is told nothing."""
    model: Mapping[str, Any] = config.values["model"]
    for key, value in model.items():
        source = config.interpolated_from(f"model.{key}") or ""
        if value is None and source.startswith("dataset."):
            raise ConfigError(f"model.{key}: takes {source}, and this data has none; set model.{key}=...")
    for key, value in dataset.properties.items():
        fact = tuple(value) if isinstance(value, (list, tuple)) else value
        if value is not None and model.get(key, fact) != fact:
            raise ConfigError(f"model.{key}: the data has {value}, not {model[key]}; leave it ${{dataset.{key}}}")


def _check_monitor(monitor: str, task: Task) -> None:
    """ConfigError unless the task has the monitored metric, and says whether low or high values of it are better."""
    try:
        specs = declared_specs(task)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"task: {error}") from error
    split, _, metric = monitor.partition("/")
    if split != "val" or metric not in task.metric_names:
        choices = ", ".join(f"val/{name}" for name in task.metric_names)
        raise ConfigError(f"monitor: there is no '{monitor}'; choices: {choices}")
    if specs[metric].direction == "none":
        raise ConfigError(f"monitor: {type(task).__name__} declares no better direction of {monitor}; name another")


def _check_soft_targets(dataset: Dataset, task: Task) -> None:
    """ConfigError where samples are mixed and the loss cannot take their odds."""
    if not isinstance(dataset, MixesSamples) or not dataset.mixing:
        return
    classes, mixing = int(dataset.properties["num_classes"]), dataset.mixing
    odds_NC = torch.full((2, classes), 1 / classes)
    try:
        task.loss(nn.Identity(), Batch(odds_NC, odds_NC))
    except Exception as error:
        raise ConfigError(
            f"dataset.augment.{mixing[0]}: mixed samples have odds as targets, and the loss takes class numbers only "
            f"({first_line(error)}); set {' and '.join(mixing)} to 0, or loss=cross_entropy"
        ) from error


def _check_forward(model: nn.Module, task: Task, example: Batch, device: Device, config: Config) -> None:
    """ConfigError if no loss can be had of samples such as the data's. Costs a forward pass of them.

    Code of one's own is not called before the run begins, for it may remember, write or wait; `train.log` has where it
    fails.
    """
    if any(type(part).__module__.partition(".")[0] not in STATELESS_PACKAGES for part in (model, task)):
        return
    buffers = [buffer.clone() for buffer in model.buffers()]
    batch = Batch(example.inputs.to(device.torch_device), example.targets.to(device.torch_device))
    model.train()
    try:
        with torch.no_grad(), device.autocast(), translate_nondeterminism_errors(), translate_oom("for two samples"):
            task.loss(model, batch)
    except BigmodelError:
        raise
    except Exception as error:
        others = f"; {fitting}" if (fitting := fitting_models(config.values)) else ""
        raise ConfigError(
            f"model: {type(model).__name__} does not go with the task {type(task).__name__} and this data: "
            f"{type(error).__name__}: {first_line(error)}{others}; -v shows where"
        ) from error
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)


def _loop_options(settings: Train, data: Loader) -> LoopOptions:
    if "val" not in data.splits and settings.patience is not None:
        raise ConfigError("patience: needs validation data; set dataset.val_fraction")
    return LoopOptions(
        log_every=_interval_in_steps(settings.log_every, data.steps_per_epoch),
        evaluate_every=_interval_in_steps(settings.evaluate_every, data.steps_per_epoch),
        save_every=_interval_in_steps(settings.save_every, data.steps_per_epoch),
        monitor=settings.monitor.partition("/")[2] if "val" in data.splits else None,
        patience=settings.patience,
    )


def _interval_in_steps(interval: str, steps_per_epoch: int) -> int:
    number = float(interval.rstrip("stepoch "))
    return max(1, math.ceil(number * (steps_per_epoch if "epoch" in interval else 1)))
