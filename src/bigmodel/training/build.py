"""Build a run from a checked config: device, dataset, loader, task, model, optimizers, and how often things happen."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate, without_pretrained
from bigmodel.config.schema import Train
from bigmodel.errors import ConfigError
from bigmodel.formatting import format_count, format_si
from bigmodel.interfaces import Dataset, HasMemoryFormat, InitsFromData, Loader, Task
from bigmodel.models.weights.reference import ComparesWithReference, keep_reference
from bigmodel.optim.groups import scale_lrs
from bigmodel.runtime.activation_checkpointing import checkpoint_blocks
from bigmodel.runtime.batch_norm import running_statistics, share_batch_norms
from bigmodel.runtime.device import Device
from bigmodel.runtime.precision import choose_precision
from bigmodel.training.adjustments import warn_slow_ema
from bigmodel.training.checks import (
    check_all_trained,
    check_forward,
    check_model_matches_data,
    check_monitor,
    check_packing,
    check_soft_targets,
)
from bigmodel.training.data import open_data
from bigmodel.training.loop import LoopOptions
from bigmodel.training.placement import describe_division, place_model
from bigmodel.training.state import TrainState

MAX_STEPS = 1e15
MAX_PLANNED_WITH_WEIGHTS = 2e9  # bytes; a dry run of a larger model takes seconds, not minutes, by its shapes


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
    the weights, and the file may be gone. For a dry run a large model is built without weights, on the meta device.

    Raises:
        ConfigError: parts do not go together.
        DataError: the data is missing or damaged.
    """
    device = _build_device(config)
    data = open_data(config, device, report)
    config, dataset, loader = data.config, data.dataset, data.loader
    settings = Train(**config.values)
    check_model_matches_data(config, dataset)
    steps = _count_steps(settings, loader)
    task = _build_task(config, dataset)

    report("building the model")
    model = _shapes_if_large(config, device) or _build_model(config, device, load_initial_weights)
    check_packing(model, dataset)
    shape_notes = _describe_shapes(model)
    load_initial_weights = load_initial_weights and not shape_notes
    if load_initial_weights:
        check_all_trained(model, settings)
        if not device.may_divide:
            check_forward(model, task, dataset.sample_batch(min(2, loader.splits["train"])), device, config)
    choose_precision(device, model, task, dataset.sample_batch)
    if device.channels_last is True and isinstance(loader, HasMemoryFormat):
        loader.memory_format = torch.channels_last
    config = config.with_values({"device.precision": device.precision, "device.channels_last": device.channels_last})
    init_report = _initialize(model, task, settings, device, loader, config.trust, load_initial_weights)
    rank_notes = _prepare_for_ranks(model, device, settings) + _checkpoint_activations(model, device)
    average = place_model(model, settings.ema is not None, device, lambda model: build_optimizers(config, model)[0])
    if load_initial_weights and device.may_divide:
        check_forward(model, task, dataset.sample_batch(min(2, loader.splits["train"])), device, config)

    optimizers, lr_notes = build_optimizers(config, model)
    rank_notes += describe_division(device, optimizers, settings.pieces)
    state = TrainState(
        model=model,
        task=task,
        optimizers=optimizers,
        schedule=instantiate("schedule", config.values["schedule"], config.trust),
        device=device,
        seed=settings.seed,
        steps=steps,
        accumulate=settings.accumulate,
        pieces=settings.pieces,
        clip_norm=settings.clip_norm,
        ema=settings.ema,
        average=average,
    )
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
        notes=[*data.notes, *rank_notes, *shape_notes],
    )


def _build_device(config: Config) -> Device:
    """Build the device, and set torch's switches. Pieces of a batch share the threads as if each had a rank."""
    node, pieces = config.values["device"], config.values.get("pieces")
    if pieces and node.get("threads") is None:
        node = {**node, "threads": max(1, _available_threads() // pieces)}
    device: Device = instantiate("device", node, config.trust)
    device.configure_torch()
    return device


@cache
def _available_threads() -> int:
    """Return how many threads torch uses by itself, as known before the process's first run sets another number."""
    return torch.get_num_threads()


def _count_steps(settings: Train, loader: Loader) -> int:
    """Return the number of updates: at least one, unless `epochs` is 0."""
    if settings.epochs * loader.steps_per_epoch > MAX_STEPS:
        raise ConfigError(f"epochs: {settings.epochs:g} epochs are more than {MAX_STEPS:g} steps")
    return max(1, round(settings.epochs * loader.steps_per_epoch)) if settings.epochs else 0


def _build_task(config: Config, dataset: Dataset) -> Task:
    """Build the task. Raises ConfigError where it has no such metric to monitor, or cannot take the data's targets."""
    task: Task = instantiate("task", config.values["task"], config.trust)
    check_monitor(config.values["monitor"], task)
    check_soft_targets(dataset, task)
    return task


def _build_model(config: Config, device: Device, load_initial_weights: bool) -> nn.Module:
    device.seed_rng(config.values["seed"], "initialisation")
    node = config.values["model"] if load_initial_weights else without_pretrained(config.values["model"])
    model: nn.Module = instantiate("model", node, config.trust)
    return model.to(device.home)


def _shapes_if_large(config: Config, device: Device) -> nn.Module | None:
    """Return the model without its weights, for a dry run of a large one; None where it is to be built as it is."""
    if not config.values["dry_run"] or device.has_auto:  # which measures
        return None
    try:
        with torch.device("meta"):
            model: nn.Module = instantiate("model", without_pretrained(config.values["model"]), config.trust)
    except Exception:  # its constructor needs values, or is wrong, which is told when it is built
        return None
    return model if _count_bytes(model) > MAX_PLANNED_WITH_WEIGHTS else None


def _describe_shapes(model: nn.Module) -> list[str]:
    """Return a line about a model that has no weights."""
    if not any(parameter.is_meta for parameter in model.parameters()):
        return []
    size = format_si(_count_bytes(model), "B")
    return [f"the model was planned by its shapes, without its {size} of weights; none were initialized or loaded"]


def _count_bytes(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _initialize(
    model: nn.Module,
    task: Task,
    settings: Train,
    device: Device,
    loader: Loader,
    trust: Sequence[str],
    load_initial_weights: bool,
) -> list[str]:
    """Initialize a model from the first batch, then as `init` says; return a line for each thing done. A task that
    compares the model with what it was gets its reference.
    """
    if load_initial_weights and isinstance(model, InitsFromData):
        device.seed_rng(settings.seed, "from data")
        with torch.no_grad():
            model.init_from_batch(next(loader.train_batches(0, 1)).inputs.to(device.home))
    device.seed_rng(settings.seed, "init")
    report: list[str] = []
    if settings.init is not None:
        with next(model.parameters()).device if _describe_shapes(model) else contextlib.nullcontext():
            report = instantiate(
                "init", settings.init, trust, model=model, fresh=load_initial_weights, epochs=settings.epochs
            )
    return [*report, keep_reference(model)] if isinstance(task, ComparesWithReference) else report


def _prepare_for_ranks(model: nn.Module, device: Device, settings: Train) -> list[str]:
    """Give all ranks the same weights and shared batch norms; return lines about it.

    Raises:
        ConfigError: batch norms would see another number of samples on another number of ranks.
    """
    if settings.pieces:
        device.world.broadcast(model.state_dict().values())
        return ["batch norms: mean and variance of each piece by itself"] if running_statistics(model) else []
    if device.count == 1:
        return []
    device.world.broadcast(model.state_dict().values())  # they are the same, unless a model draws by itself
    num_norms = share_batch_norms(model)
    if num_norms and settings.accumulate > 1:
        raise ConfigError(
            f"accumulate: batch norms over {device.count} ranks need accumulate=1, got {settings.accumulate}"
        )
    return [f"batch norms ({num_norms}): mean and variance over the pieces of all ranks"] if num_norms else []


def _checkpoint_activations(model: nn.Module, device: Device) -> list[str]:
    """Have blocks compute their activations twice, if the device says so; return a line about it."""
    if device.checkpoint_activations != "blocks":
        return []
    if count := checkpoint_blocks(model):
        blocks = format_count(count, "block")
        return [f"device.checkpoint_activations=blocks: the activations of {blocks} are computed twice"]
    return [f"device.checkpoint_activations=blocks: {type(model).__name__} has no repeated blocks, and keeps all"]


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
