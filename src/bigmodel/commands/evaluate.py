"""`bigmodel-evaluate`: the metrics of a trained run on a split of its own data."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate
from bigmodel.config.old_methods import check_method_names
from bigmodel.config.schema import Evaluate
from bigmodel.errors import ConfigError, DataError, StorageError
from bigmodel.formatting import columns_of, escape_control, json_line, left
from bigmodel.inference.predictor import Predictor, check_eval_targets, load
from bigmodel.interfaces import Dataset, Loader, LoaderOptions, Task
from bigmodel.runtime.device import Device
from bigmodel.runtime.offline import offline
from bigmodel.runtime.signals import StopRequest
from bigmodel.training.error_translation import translate_compile_errors
from bigmodel.training.evaluation import evaluate

DATA_PATH_KEYS = ("data_dir", "root", "file", "path")  # which key of a dataset says where it lies


def run(config: Config, stop: StopRequest | None = None) -> None:
    """Evaluate and print.

    Raises:
        ConfigError: no such run, or no such split in it.
        DataError: the run's data is missing, damaged, or of other classes.
        StorageError: no checkpoint verifies.
    """
    settings = Evaluate(**config.values)
    device: Device = instantiate("device", settings.device, config.trust)
    device.configure_torch()
    predictor = load(settings.run, device, config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    check_eval_targets(predictor.config, predictor.trust)
    data = _data(predictor, settings)
    with offline():
        task: Task = instantiate("task", predictor.config["task"], predictor.trust)
    with translate_compile_errors():
        report = evaluate(device.maybe_compile(predictor.model), task, data.eval_batches(settings.split), device)
    about = {
        "run": settings.run,
        "step": predictor.step,
        "split": settings.split,
        "samples": data.splits[settings.split],
    }
    if settings.format == "json":
        classes = {} if predictor.classes is None else {"classes": predictor.classes}
        print(json_line(about | classes | report, sys.stdout.encoding))
    else:
        print("\n".join(_table(about, report, predictor.classes)))


def _data(predictor: Predictor, settings: Evaluate) -> Loader:
    stored = predictor.config
    node = dict(stored["dataset"])
    place = next((key for key in DATA_PATH_KEYS if key in node), None)  # none: the data is in the package
    if settings.data_dir is not None and place is not None:
        node[place] = settings.data_dir
    with offline("; get the run's data and set data_dir"):
        dataset: Dataset = instantiate("dataset", node, predictor.trust)
    now = json.loads(json.dumps(dict(dataset.processor_spec())))
    for key, value in predictor.processor_spec.items():
        if now.get(key, value) != value:
            raise DataError(
                f"dataset: its {key} are not those that the run was trained on; set data_dir to the run's data"
            )
    try:
        facts: dict[str, Any] = {"seed": int(stored["seed"]), "resident_bytes": float(stored["resident_gb"]) * 1e9}
        if facts["seed"] < 0 or not 0 <= facts["resident_bytes"] < math.inf or int(stored["workers"]) < 0:
            raise ValueError("seed, workers or resident_gb is no number that a run has")
        facts["workers"] = min(int(stored["workers"]), os.cpu_count() or 1)  # as many as this machine can use
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StorageError(f"{predictor.path}: its state.json is not of this version: {error!r}") from error
    data = dataset.loader(LoaderOptions(predictor.device.torch_device, settings.batch_size, **facts))
    check_method_names("loader", data)
    if settings.split not in data.splits:
        raise ConfigError(f"split: this run has no '{settings.split}' data; choices: {', '.join(data.splits)}")
    return data


def _table(about: Mapping[str, Any], report: Mapping[str, Any], classes: Sequence[str] | None) -> list[str]:
    metrics = {name: value for name, value in report.items() if isinstance(value, float)}
    rows = [(name, str(value)) for name, value in about.items()]
    rows += [(name, f"{value:.4f}") for name, value in metrics.items()]
    width = max(10, 2 + max(len(name) for name, _ in rows))
    lines = [f"{name:<{width}}{value}" for name, value in rows]
    if "per_class_accuracy" not in report or classes is None:
        return lines
    width = max(columns_of(escape_control(name)) for name in ("class", *classes))
    counts = [sum(row) for row in report["confusion"]]
    lines += ["", f"{'class':<{width}}  accuracy  samples"]
    for name, accuracy, count in zip(classes, report["per_class_accuracy"], counts, strict=True):
        lines.append(
            f"{left(escape_control(name), width)}  {'-' if accuracy is None else f'{accuracy:.4f}':>8}  {count:>7}"
        )
    return lines
