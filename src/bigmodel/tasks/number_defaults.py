"""What tasks of numbers ask of data whose target may be either numbers or classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_NUMBERS = ("bigmodel.tasks.regression.Regression", "bigmodel.tasks.forecasting.Forecasting")
_CLASSIFICATION = "bigmodel.tasks.classification.Classification"


def number_defaults(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return settings by dotted key and a line about them; none where nothing follows from the task."""
    if config["task"].get("_target_") in _OF_NUMBERS and config["dataset"].get("target_type") == "auto":
        return {"dataset.target_type": "number"}, ["dataset.target_type=number: the task is about numbers"]
    return {}, []


def unfit_target(config: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
    """Return what to set where a dataset found numbers in its target and the task is classification, else None."""
    if config["task"].get("_target_") == _CLASSIFICATION and properties.get("target_type") == "number":
        target = config["dataset"].get("target")
        return (
            f"dataset.target: '{target}' holds numbers that are not classes; set task=regression, or "
            "dataset.target_type=class if each number is a class"
        )
    return None
