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
from bigmodel.inference.predictor import Predictor, check_eval_targets, damaged_state, load
from bigmodel.interfaces import Dataset, Loader, LoaderOptions, Task
from bigmodel.runtime.device import Device
from bigmodel.runtime.offline import offline
from bigmodel.runtime.signals import StopRequest
from bigmodel.training.error_translation import translate_compile_errors, translate_oom
from bigmodel.training.evaluation import evaluate

DATA_PATH_KEYS = ("data_dir", "root", "file", "path")  # of a dataset: where its files are


def run(config: Config, stop: StopRequest | None = None) -> None:
    """Evaluate a run and print its metrics.

    Raises:
        ConfigError: the run does not exist or has no such split.
        DataError: the run's data is missing or damaged, or its classes differ.
        StorageError: no checkpoint verifies.
        OutOfMemoryError: a batch does not fit.
    """
    settings = Evaluate(**config.values)
    device: Device = instantiate("device", settings.device, config.trust)
    device.configure_torch()
    predictor = load(settings.run, device, config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    check_eval_targets(predictor.config, predictor.trust)
    loader = _open_data(predictor, settings)
    with offline():
        task: Task = instantiate("task", predictor.config["task"], predictor.trust)
    with translate_compile_errors(), translate_oom(f"at batch_size={settings.batch_size}; lower it"):
        report = evaluate(device.maybe_compile(predictor.model), task, loader.eval_batches(settings.split), device)
    header = {
        "run": settings.run,
        "step": predictor.step,
        "split": settings.split,
        "samples": loader.splits[settings.split],
    }
    if settings.format == "json":
        classes = {} if predictor.classes is None else {"classes": predictor.classes}
        print(json_line(header | classes | report, sys.stdout.encoding))
    else:
        print("\n".join(_format_table(header, report, predictor.classes)))


def _open_data(predictor: Predictor, settings: Evaluate) -> Loader:
    stored = predictor.config
    node = dict(stored["dataset"])
    path_key = next((key for key in DATA_PATH_KEYS if key in node), None)  # None: the data is in the package
    if settings.data_dir is not None and path_key is not None:
        node[path_key] = settings.data_dir
    with offline("; get the run's data and set data_dir"):
        dataset: Dataset = instantiate("dataset", node, predictor.trust)
    current = json.loads(json.dumps(dict(dataset.processor_spec())))  # as state.json would hold it
    for key, value in predictor.processor_spec.items():
        if current.get(key, value) != value:
            raise DataError(
                f"dataset: {key} differs from the run's training data; set data_dir to the data it was trained on"
            )
    try:
        seed = int(stored["seed"])
        resident_bytes = float(stored["resident_gb"]) * 1e9
        workers = int(stored["workers"])
        if seed < 0 or not 0 <= resident_bytes < math.inf or workers < 0:
            raise ValueError("seed, workers or resident_gb out of range")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StorageError(damaged_state(predictor.path, repr(error))) from error
    options = LoaderOptions(
        predictor.device.torch_device,
        settings.batch_size,
        seed,
        resident_bytes,
        workers=min(workers, os.cpu_count() or 1),  # the run's machine may have had more cores
    )
    loader = dataset.loader(options)
    check_method_names("loader", loader)
    if settings.split not in loader.splits:
        raise ConfigError(f"split: this run has no '{settings.split}' data; choices: {', '.join(loader.splits)}")
    return loader


def _format_table(header: Mapping[str, Any], report: Mapping[str, Any], classes: Sequence[str] | None) -> list[str]:
    metrics = {name: value for name, value in report.items() if isinstance(value, float)}
    rows = [(name, str(value)) for name, value in header.items()]
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
