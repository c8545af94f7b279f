"""From a checked config to the parts of a run: device, data, model, task, optimizer, and how often things happen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bigmodel.adjustments import DEFAULT_BATCH_SIZE, slow_average, with_defaults, with_outputs, with_weights
from bigmodel.conf_directory import fitting_models
from bigmodel.config import Config
from bigmodel.datasets.locations import settled
from bigmodel.device import Device
from bigmodel.errors import BigmodelError, ConfigError
from bigmodel.failures import out_of_memory_in_words, unrepeatable_in_words
from bigmodel.interfaces import Batch, Counting, Data, Dataset, FromData, Mixing, Reading, Task
from bigmodel.job import Job
from bigmodel.loop import Plan
from bigmodel.optim.groups import scale_rates
from bigmodel.precision import settle
from bigmodel.settings import Train
from bigmodel.targets import build, without_weights
from bigmodel.tasks.metric_spec import declared
from bigmodel.tasks.number_defaults import unfit_target
from bigmodel.words import first_line, printable

_MOST_STEPS = 1e15
_STATELESS = {"bigmodel", "torch", "torchvision"}  # but for their buffers


@dataclass
class Parts:
    """All that a run is made of, built but not yet trained."""

    config: Config
    settings: Train
    device: Device
    dataset: Dataset
    data: Data
    job: Job
    plan: Plan
    initial: Sequence[str]  # where the first weights came from, in words
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()  # what settings nobody made became, and what the dataset guessed, dropped or changed


def assemble(config: Config, fresh: bool = True) -> Parts:
    """Build device, data, model, task and optimizer from the config, and settle what only the data can tell.

    A run that is not `fresh` takes its weights from a checkpoint, not from the file of pretrained ones, which may be
    gone, nor from the data.

    Raises:
        ConfigError: parts do not fit together; all reasons at once.
        DataError: the data is missing or damaged.
    """
    nobody_set_it = config.tree["batch_size"] is None
    config, adjusted = with_defaults(config)
    tree, trust = config.tree, config.trust
    device: Device = build("device", tree["device"], trust)
    device.prepare()
    if moved := settled(tree["dataset"], tree["data_dir"]):
        config = config.with_facts(moved)
        adjusted += [f"{key}={value}, in data_dir" for key, value in moved.items()]
        tree = config.tree
    dataset: Dataset = build("dataset", tree["dataset"], trust)
    if (unfit := unfit_target(tree, dataset.facts)) is not None:
        raise ConfigError(unfit)
    facts = {f"dataset.{key}": value for key, value in dataset.facts.items() if key in tree["dataset"]}
    config = config.with_facts({**facts, "device.threads": device.threads})
    config, told = with_outputs(config, dataset)
    tree, settings = config.tree, Train(**config.tree)
    batch_size = settings.batch_size or DEFAULT_BATCH_SIZE
    if settings.accumulate > batch_size:
        raise ConfigError(f"accumulate: a batch of {batch_size} has no {settings.accumulate} pieces")
    _agree(config, dataset)
    how = Reading(
        device.torch_device,
        batch_size,
        settings.seed,
        resident_bytes=settings.resident_gb * 1e9,
        workers=settings.workers,
        limit_batches=settings.limit_batches,
        overfit_batch=settings.overfit_batch,
        balanced=settings.sampler == "balanced",
    )
    data = dataset.open(how)
    size = data.splits["train"]
    if nobody_set_it and settings.accumulate <= size < batch_size:
        adjusted.append(f"batch_size={size}, not {batch_size}: there are no more training samples")
        config = config.with_facts({"batch_size": size})
        tree, settings, batch_size = config.tree, Train(**config.tree), size
        how = replace(how, batch_size=size)
        data = dataset.open(how)
    if how.balanced and not isinstance(data, Counting):
        raise ConfigError("sampler: this data cannot be balanced; set sampler=shuffled")
    config, weighed = with_weights(config, dataset, data)
    tree = config.tree
    task: Task = build("task", tree["task"], trust)
    _hold_monitor(settings.monitor, task)
    _hold_mixing(dataset, task)
    if batch_size > size:
        raise ConfigError(f"batch_size: {batch_size} is more than the {size} training samples")
    if settings.epochs * data.steps_per_epoch > _MOST_STEPS:
        raise ConfigError(f"epochs: {settings.epochs:g} epochs are more than {_MOST_STEPS:g} steps")
    device.seed(settings.seed, "initialisation")
    node = dict(tree["model"]) if fresh else without_weights(tree["model"])
    model = build("model", node, trust).to(device.torch_device)
    if fresh and not settings.epochs:
        _refuse_untrained(model, settings)
    if fresh:
        _hold_model(model, task, dataset.example(min(2, batch_size)), device, config)
    settle(device, model, task, dataset.example)
    if device.channels_last is True:
        data = dataset.open(replace(how, channels_last=True))  # opening reads nothing yet
    config = config.with_facts({"device.precision": device.precision, "device.channels_last": device.channels_last})
    if fresh and isinstance(model, FromData):
        device.seed(settings.seed, "from data")
        with torch.no_grad():
            model.initialise(next(data.train(0, 1)).inputs)
    device.seed(settings.seed, "init")
    notes = (
        []
        if settings.init is None
        else build("init", settings.init, trust, model=model, fresh=fresh, epochs=settings.epochs)
    )
    optimizers, scaled = optimizers_of(config, model)
    steps = max(1, round(settings.epochs * data.steps_per_epoch)) if settings.epochs else 0
    job = Job(
        model=model,
        task=task,
        optimizers=optimizers,
        schedule=build("schedule", tree["schedule"], trust),
        device=device,
        seed=settings.seed,
        steps=steps,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        ema=settings.ema,
    )
    plan = _plan(settings, data)
    told = [*map(printable, (*adjusted, *getattr(dataset, "notes", ()))), *told, *weighed]
    slow = slow_average(settings.ema, steps)
    return Parts(config, settings, device, dataset, data, job, plan, [*notes, *scaled], slow, told)


def optimizers_of(config: Config, model: nn.Module, **changed: Any) -> tuple[list[torch.optim.Optimizer], list[str]]:
    """The optimizers of what is trained, but for what is `changed` in the node, and lines about their rates.

    Raises:
        ConfigError: optimizer and model do not fit together, or a pattern of `lr_scale` matches nothing.
    """
    node = {**config.tree["optim"], **changed}
    built = build("optim", node, config.trust, model=model, params=model.parameters())
    optimizers = built if isinstance(built, list) else [built]
    factors = config.tree.get("lr_scale")
    try:
        return optimizers, [f"lr_scale: {scale_rates(optimizers, model, factors)}"] if factors else []
    except ValueError as error:
        raise ConfigError(f"lr_scale: {error}") from error


def _refuse_untrained(model: nn.Module, settings: Train) -> None:
    """ConfigError where nothing is to be trained and `model.pretrained` lacks tensors, unless that is asked for."""
    untrained, init = getattr(model, "untrained", None), settings.init or {}
    if untrained and not init.get("from") and init.get("incomplete", "refuse") == "refuse":
        raise ConfigError(
            f"epochs: 0 would test {len(untrained)} tensors that model.pretrained lacks, as {untrained[0]}; "
            "train them, or set init.incomplete=test"
        )


def _agree(config: Config, dataset: Dataset) -> None:
    """ConfigError if the model is told something of the data that the data is not, or is told nothing."""
    model: Mapping[str, Any] = config.tree["model"]
    for key, value in model.items():
        source = config.reference(f"model.{key}") or ""
        if value is None and source.startswith("dataset."):
            raise ConfigError(f"model.{key}: takes {source}, and this data has none; set model.{key}=...")
    for key, value in dataset.facts.items():
        fact = tuple(value) if isinstance(value, (list, tuple)) else value
        if value is not None and model.get(key, fact) != fact:
            raise ConfigError(f"model.{key}: the data has {value}, not {model[key]}; leave it ${{dataset.{key}}}")


def _hold_monitor(monitor: str, task: Task) -> None:
    """ConfigError unless the task has the monitored metric, and says whether low or high values of it are better."""
    try:
        specs = declared(task)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"task: {error}") from error
    split, _, metric = monitor.partition("/")
    if split != "val" or metric not in task.metric_names:
        choices = ", ".join(f"val/{name}" for name in task.metric_names)
        raise ConfigError(f"monitor: there is no '{monitor}'; choices: {choices}")
    if specs[metric].direction == "none":
        raise ConfigError(f"monitor: {type(task).__name__} declares no better direction of {monitor}; name another")


def _hold_mixing(dataset: Dataset, task: Task) -> None:
    """ConfigError where samples are mixed and the loss cannot take their odds."""
    if not isinstance(dataset, Mixing) or not dataset.mixing:
        return
    classes, mixing = int(dataset.facts["num_classes"]), dataset.mixing
    odds_NC = torch.full((2, classes), 1 / classes)
    try:
        task.loss(nn.Identity(), Batch(odds_NC, odds_NC))
    except Exception as error:
        raise ConfigError(
            f"dataset.augment.{mixing[0]}: mixed samples have odds as targets, and the loss takes class numbers only "
            f"({first_line(error)}); set {' and '.join(mixing)} to 0, or loss=cross_entropy"
        ) from error


def _hold_model(model: nn.Module, task: Task, example: Batch, device: Device, config: Config) -> None:
    """ConfigError if no loss can be had of samples such as the data's. Costs a forward pass of them.

    Code of one's own is not called before the run begins, for it may remember, write or wait; `train.log` has where it
    fails.
    """
    if any(type(part).__module__.partition(".")[0] not in _STATELESS for part in (model, task)):
        return
    buffers = [buffer.clone() for buffer in model.buffers()]
    batch = Batch(example.inputs.to(device.torch_device), example.targets.to(device.torch_device))
    model.train()
    try:
        with torch.no_grad(), device.autocast(), unrepeatable_in_words(), out_of_memory_in_words("for two samples"):
            task.loss(model, batch)
    except BigmodelError:
        raise
    except Exception as error:
        others = f"; {fitting}" if (fitting := fitting_models(config.tree)) else ""
        raise ConfigError(
            f"model: {type(model).__name__} does not go with the task {type(task).__name__} and this data: "
            f"{type(error).__name__}: {first_line(error)}{others}; -v shows where"
        ) from error
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)


def _plan(settings: Train, data: Data) -> Plan:
    if "val" not in data.splits and settings.patience is not None:
        raise ConfigError("patience: needs validation data; set dataset.val_fraction")
    return Plan(
        log_every=_steps(settings.log_every, data.steps_per_epoch),
        evaluate_every=_steps(settings.evaluate_every, data.steps_per_epoch),
        save_every=_steps(settings.save_every, data.steps_per_epoch),
        monitor=settings.monitor.partition("/")[2] if "val" in data.splits else None,
        patience=settings.patience,
    )


def _steps(interval: str, steps_per_epoch: int) -> int:
    number = float(interval.rstrip("stepoch "))
    return max(1, math.ceil(number * (steps_per_epoch if "epoch" in interval else 1)))
