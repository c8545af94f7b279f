"""Defaults that a task brings where the shipped ones are for classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_NUMBERS = ("regression", "forecasting")
_MONITORED = {  # for tasks without an accuracy: the metric that decides the best checkpoint
    "regression": "val/loss",
    "forecasting": "val/loss",
    "language_modelling": "val/loss",
    "permuted_language_modelling": "val/loss",
    "multi_label": "val/auc",
    "translation": "val/loss",
    "ctc": "val/loss",
}
_CLASSIFICATION = "bigmodel.tasks.classification.Classification"
_OF_CLASSES = "val/accuracy"  # what conf/train.yaml monitors


def number_defaults(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return settings by dotted key and a line about them; none for classification, or where all are set already."""
    name = _name(config["task"].get("_target_", ""))
    if name not in _MONITORED:
        return {}, []
    changed = {}
    if config["monitor"] == _OF_CLASSES:
        changed["monitor"] = _MONITORED[name]
    if name in _OF_NUMBERS and config["dataset"].get("target_type") == "auto":
        changed["dataset.target_type"] = "number"
    settings = ", ".join(f"{key}={value}" for key, value in changed.items())
    if name not in _OF_NUMBERS:
        return changed, [f"task={name}: {settings}"] if changed else []
    loss = (config.get("loss") or {}).get("_target_", "").rpartition(".")[2]
    return changed, [f"task={name}: {settings}; the loss is {loss or 'its own'}"] if changed else []


def _name(target: str) -> str:
    """Return the choice of `task=` with this target; empty for a task of a user's package."""
    parts = target.split(".")
    return parts[2] if parts[:2] == ["bigmodel", "tasks"] and len(parts) == 4 else ""


def monitor_of(config: Mapping[str, Any]) -> str:
    """Return the metric that decides the best checkpoint of a run with this config."""
    return str(number_defaults(config)[0].get("monitor", config["monitor"]))


def unfit_target(config: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
    """Return what to set where a dataset found numbers in its target and the task is classification, else None."""
    if config["task"].get("_target_") == _CLASSIFICATION and properties.get("target_type") == "number":
        target = config["dataset"].get("target")
        return (
            f"dataset.target: '{target}' holds numbers that are no classes; set task=regression, or "
            "dataset.target_type=class if each number is a class"
        )
    return None
