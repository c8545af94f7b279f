"""Check that the parts of a run go together, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bigmodel.config.config import Config
from bigmodel.config.location import fitting_models
from bigmodel.config.schema import Train
from bigmodel.datasets.loading.packing import PacksRows
from bigmodel.errors import BigmodelError, ConfigError
from bigmodel.formatting import first_line, format_count
from bigmodel.interfaces import Batch, Dataset, MixesSamples, Task
from bigmodel.metric_spec import declared_specs
from bigmodel.models.decoding.generation import ReadsPackedRows
from bigmodel.runtime.device import Device
from bigmodel.training.error_translation import translate_nondeterminism_errors, translate_oom

STATELESS_PACKAGES = {"bigmodel", "torch", "torchvision"}  # whose models keep no state but buffers, which are restored


def check_all_trained(model: nn.Module, settings: Train) -> None:
    """Raise ConfigError where nothing is trained and `model.pretrained` lacks tensors, unless that was asked for."""
    untrained, init = getattr(model, "untrained", None), settings.init or {}
    if not settings.epochs and untrained and not init.get("from") and init.get("incomplete", "refuse") == "refuse":
        raise ConfigError(
            f"epochs: 0 would test {format_count(len(untrained), 'tensor')} that model.pretrained lacks, "
            f"as {untrained[0]}; train them, or set init.incomplete=test"
        )


def check_model_matches_data(config: Config, dataset: Dataset) -> None:
    """Raise ConfigError where a model argument contradicts the data, or needs a property that the data lacks."""
    model: Mapping[str, Any] = config.values["model"]
    for key, value in model.items():
        source = config.interpolated_from(f"model.{key}") or ""
        if value is None and source.startswith("dataset."):
            raise ConfigError(f"model.{key}: needs {source}, which this data does not have; set model.{key}=...")
    for key, value in dataset.properties.items():
        fact = tuple(value) if isinstance(value, (list, tuple)) else value
        if value is not None and model.get(key, fact) != fact:
            raise ConfigError(f"model.{key}: got {model[key]}, but the data has {value}; leave it ${{dataset.{key}}}")


def check_packing(model: nn.Module, dataset: Dataset) -> None:
    """Raise ConfigError where the texts of one row would see each other."""
    if isinstance(dataset, PacksRows) and dataset.packs_rows and not isinstance(model, ReadsPackedRows):
        raise ConfigError(
            f"dataset.packing: {type(model).__name__} does not keep the texts of a row apart; set dataset.packing=false"
        )


def check_monitor(monitor: str, task: Task) -> None:
    """Raise ConfigError unless the task has the monitored metric and declares which direction is better."""
    try:
        specs = declared_specs(task)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"task: {error}") from error
    split, _, metric = monitor.partition("/")
    if split != "val" or metric not in task.metric_names:
        choices = ", ".join(f"val/{name}" for name in task.metric_names)
        raise ConfigError(f"monitor: there is no '{monitor}'; choices: {choices}")
    if specs[metric].direction == "none":
        raise ConfigError(
            f"monitor: {type(task).__name__} does not declare whether low or high {monitor} is better; "
            "choose another metric"
        )


def check_soft_targets(dataset: Dataset, task: Task) -> None:
    """Raise ConfigError where samples are mixed and the loss does not take class probabilities."""
    if not isinstance(dataset, MixesSamples) or not dataset.mixing:
        return
    classes, mixing = int(dataset.properties["num_classes"]), dataset.mixing
    probs_NC = torch.full((2, classes), 1 / classes)
    try:
        task.loss(nn.Identity(), Batch(probs_NC, probs_NC))
    except Exception as error:
        off = " ".join(f"dataset.augment.{name}=0" for name in mixing)
        raise ConfigError(
            f"dataset.augment.{mixing[0]}: targets become class probabilities, but this loss takes class indices; set "
            f"{off} or loss=cross_entropy ({first_line(error)})"
        ) from error


def check_forward(model: nn.Module, task: Task, example: Batch, device: Device, config: Config) -> None:
    """Raise ConfigError if the loss of samples like the data's cannot be computed. Costs one forward pass.

    User code is not called here: it may keep state, write files or block. It first runs inside the run directory, where
    train.log records a failure.
    """
    if any(type(part).__module__.partition(".")[0] not in STATELESS_PACKAGES for part in (model, task)):
        return
    buffers = [buffer.clone() for buffer in model.buffers()]
    batch = Batch(example.inputs.to(device.torch_device), example.targets.to(device.torch_device))
    model.train()
    try:
        with (
            torch.no_grad(),
            device.autocast(),
            translate_nondeterminism_errors(),
            translate_oom("for two samples: the model is too large"),
        ):
            task.loss(model, batch)
    except BigmodelError:
        raise
    except Exception as error:
        others = f"; {fitting}" if (fitting := fitting_models(config.values)) else ""
        raise ConfigError(
            f"model: {type(model).__name__} fails on a sample of this data with task {type(task).__name__}{others}; -v "
            f"shows the traceback ({type(error).__name__}: {first_line(error)})"
        ) from error
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
