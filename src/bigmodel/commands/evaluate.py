"""`bigmodel-evaluate`: the metrics of a trained run on a split of its own data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate
from bigmodel.config.schema import Evaluate
from bigmodel.errors import ConfigError
from bigmodel.formatting import columns_of, escape_control, json_line, left
from bigmodel.inference.predictor import Predictor, check_eval_targets, load
from bigmodel.inference.run_data import open_run_data, open_run_task
from bigmodel.interfaces import Loader
from bigmodel.runtime.device import Device
from bigmodel.runtime.signals import StopRequest
from bigmodel.training.error_translation import translate_compile_errors, translate_oom
from bigmodel.training.evaluation import evaluate


def run(config: Config, stop: StopRequest | None = None, report: Callable[[str], object] = lambda text: None) -> None:
    """Evaluate a run and print its metrics; `report` is told what is being done.

    Raises:
        ConfigError: the run does not exist or has no such split.
        DataError: the run's data is missing or damaged, or its classes differ.
        StorageError: no checkpoint verifies.
        OutOfMemoryError: a batch does not fit.
    """
    settings = Evaluate(**config.values)
    device: Device = instantiate("device", settings.device, config.trust)
    device.check_alone()
    device.configure_torch()
    report("opening the run")
    predictor = load(settings.run, device, config.trust)
    for line in predictor.warnings:
        print(f"warning: {line}", file=sys.stderr)
    check_eval_targets(predictor.config, predictor.trust)
    report("reading data")
    loader = _open_split(predictor, settings)
    task = open_run_task(predictor)
    report(f"evaluating {settings.split}")
    with translate_compile_errors(), translate_oom(f"at batch_size={settings.batch_size}; lower it"):
        found = evaluate(device.maybe_compile(predictor.model), task, loader.eval_batches(settings.split), device)
    header = {
        "run": settings.run,
        "step": predictor.step,
        "split": settings.split,
        "samples": loader.splits[settings.split],
    }
    if settings.format == "json":
        classes = {} if predictor.classes is None else {"classes": predictor.classes}
        print(json_line(header | classes | found, sys.stdout.encoding))
    else:
        print("\n".join(_format_table(header, found, predictor.classes)))


def _open_split(predictor: Predictor, settings: Evaluate) -> Loader:
    loader = open_run_data(predictor, settings.data_dir, settings.batch_size)
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
