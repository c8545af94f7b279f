"""Settings that follow from a task where the data's target may be read as numbers or as classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_NUMBERS = ("bigmodel.tasks.regression.Regression", "bigmodel.tasks.forecasting.Forecasting")
_CLASSIFICATION = "bigmodel.tasks.classification.Classification"


def number_defaults(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the settings, by dotted key, that a regression or forecasting task implies, and a line for each."""
    if config["task"].get("_target_") in _OF_NUMBERS and config["dataset"].get("target_type") == "auto":
        return {"dataset.target_type": "number"}, ["dataset.target_type=number: the task is about numbers"]
    return {}, []


def unfit_target(config: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
    """Return the error of a classification task whose dataset found numbers as its target, else None."""
    if config["task"].get("_target_") == _CLASSIFICATION and properties.get("target_type") == "number":
        target = config["dataset"].get("target")
        return (
            f"dataset.target: '{target}' holds numbers that are not classes; set task=regression, or "
            "dataset.target_type=class if each number is a class"
        )
    return None
