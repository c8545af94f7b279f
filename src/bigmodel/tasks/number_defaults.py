"""Settings that a task of numbers needs where the shipped defaults are those of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_NUMBERS = {
    "bigmodel.tasks.regression.Regression": "regression",
    "bigmodel.tasks.forecasting.Forecasting": "forecasting",
}
_CLASSIFICATION = "bigmodel.tasks.classification.Classification"
_OF_CLASSES = "val/accuracy"  # what conf/train.yaml monitors


def number_defaults(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings by dotted key, and a line that says so; none where the task tells classes, or all is set already."""
    name = _OF_NUMBERS.get(config["task"].get("_target_", ""))
    if name is None:
        return {}, []
    changed = {}
    if config["monitor"] == _OF_CLASSES:
        changed["monitor"] = "val/loss"
    if config["dataset"].get("target_is") == "auto":
        changed["dataset.target_is"] = "number"
    loss = (config.get("loss") or {}).get("_target_", "").rpartition(".")[2]
    settings = ", ".join(f"{key}={value}" for key, value in changed.items())
    return changed, [f"task={name}: {settings}; the loss is {loss or 'its own'}"] if changed else []


def unfit_target(config: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """What to set where a dataset found numbers in its target, and the task tells classes."""
    if config["task"].get("_target_") == _CLASSIFICATION and facts.get("target_is") == "number":
        target = config["dataset"].get("target")
        return (
            f"dataset.target: '{target}' holds numbers that are no classes; set task=regression, or "
            "dataset.target_is=class if each number is a class"
        )
    return None
