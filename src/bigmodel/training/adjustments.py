"""Derive settings that were left open from other settings or from the data, each with a line that reports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigmodel.config.config import Config
from bigmodel.datasets.files.locations import resolve_paths
from bigmodel.errors import ConfigError
from bigmodel.formatting import format_count, truncate
from bigmodel.interfaces import CountsClasses, Dataset, Loader
from bigmodel.runtime.device import Device
from bigmodel.tasks.losses import balanced
from bigmodel.tasks.number_defaults import number_defaults
from bigmodel.training.ema import warmed_up

_WEIGHED = "bigmodel.tasks.losses.CrossEntropy"
_SPAN = 0.5  # of a run's updates
DEFAULT_BATCH_SIZE = 64


Changes = tuple[dict[str, Any], list[str]]  # values by dotted key, and lines that report them


def fill_defaults(values: Mapping[str, Any]) -> Changes:
    """Return the defaults that depend on other settings."""
    changes, lines = number_defaults(values)
    if values["batch_size"] is None:
        changes["batch_size"] = DEFAULT_BATCH_SIZE
    return changes, lines


def set_paths(values: Mapping[str, Any]) -> Changes:
    """Return the paths of the dataset's files that lie in `data_dir`. Raises DataError where one lies here as well."""
    paths = resolve_paths(values["dataset"], values["data_dir"])
    return dict(paths), [f"{key}={value}, in data_dir" for key, value in paths.items()]


def set_device_counts(values: Mapping[str, Any], device: Device) -> Changes:
    """Return the device's number of threads, and of ranks where the config asks for another."""
    changes, lines = {"device.threads": device.threads}, []
    if device.count != values["device"].get("count", 1):
        changes["device.count"] = device.count
        lines.append(f"device.count={device.count}: as many ranks take part")
    return changes, lines


def warn_slow_ema(decay: float | None, steps: int) -> list[str]:
    """Return a warning where the EMA spans more than half of the run's updates."""
    if not decay or not steps or 1 / (1 - decay) < _SPAN * steps:
        return []
    fitting, reached = 1 - float(f"{1 / max(2.0, steps / 10):.1g}"), warmed_up(decay, steps - 1)
    if fitting >= decay:  # no shorter average would help so short a run
        return []
    return [
        f"ema: {decay:g} averages over {1 / (1 - decay):,.0f} updates, and this run has {steps:,}: its warm-up ends at "
        f"{reached:.4g}; ema={fitting:g} spans a tenth of the run"
    ]


def set_num_outputs(config: Config, dataset: Dataset) -> Changes:
    """Give the model one output for each number or label, where the data has no classes."""
    outputs, key = dataset.properties.get("outputs"), "model.num_classes"
    if outputs is None or dataset.properties.get("num_classes") is not None:
        return {}, []
    is_set = config.values["model"].get("num_classes", 0) is not None
    if is_set or config.interpolated_from(key) != "dataset.num_classes":
        return {}, []
    return {key: outputs}, [f"{key}={outputs}: one output for each number or label, the data has no classes"]


def set_class_weights(values: Mapping[str, Any], dataset: Dataset, loader: Loader) -> Changes:
    """Compute `loss.weight=balanced`, and check that a list of weights has one for each class.

    Raises:
        ConfigError: the number of weights is not that of the classes, or there are no classes to balance.
    """
    loss = values.get("loss") or {}
    given, number = loss.get("weight"), dataset.properties.get("num_classes")
    if isinstance(given, (list, tuple)) and loss.get("_target_") == _WEIGHED and number not in (None, len(given)):
        names = truncate(", ".join(map(str, dataset.processor_spec().get("classes", ()))), 200)
        there = f"the data has {format_count(number, 'class', 'classes')}{f' ({names})' if names else ''}"
        raise ConfigError(
            f"loss.weight: got {format_count(len(given), 'weight')}, {there}; "
            f"set loss.weight=balanced or {number} numbers"
        )
    if given != "balanced":
        return {}, []
    counts_C = loader.class_counts() if isinstance(loader, CountsClasses) else None
    if counts_C is None:
        raise ConfigError("loss.weight: balanced is for data with one class a sample; set loss.weight=null")
    missing = max(0, int(dataset.properties.get("num_classes") or 0) - len(counts_C))
    weights = [float(f"{weight:.6g}") for weight in balanced(counts_C)] + [0.0] * missing
    return {"loss.weight": weights}, [f"loss.weight=balanced: {truncate(weights, 200)}"]
