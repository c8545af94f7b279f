"""Results of `Predictor.predict`, and the facts that describe a predictor; both as text and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from bigmodel.formatting import format_count
from bigmodel.runs.display.html import rows_table

_MAX_CLASSES_SHOWN = 5  # in a repr


class Prediction(NamedTuple):
    """One input and the model's prediction; unpacks as a pair.

    `input` is the file, the text, or the index in the list of inputs. `answer` holds what `bigmodel-predict
    format=json` prints, or `error` alone where the input could not be read.
    """

    input: str
    answer: dict[str, Any]

    @property
    def error(self) -> str | None:
        """Why the input could not be read; None if it was."""
        return self.answer.get("error")


class Predictions(list[Prediction]):
    """The predictions for all inputs; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        keys = list(dict.fromkeys(key for one in self for key in one.answer))
        rows = [[one.input, *(_cell(one.answer.get(key, "")) for key in keys)] for one in self]
        return rows_table(["input", *keys], rows)


def predictor_facts(
    *,
    model: nn.Module,
    config: Mapping[str, Any],
    classes: Sequence[str] | None,
    run: Path,
    step: int,
    best: Mapping[str, Any],
    device: str,
    warnings: Sequence[str],
) -> dict[str, str]:
    """Return what describes a loaded model, by name; facts that the checkpoint lacks are left out."""
    facts = {"model": type(model).__name__}
    task = config.get("task")
    if isinstance(task, Mapping) and "_target_" in task:
        facts["task"] = str(task["_target_"]).split(".")[-2:][0]
    if classes is not None:
        shown = [*classes[:_MAX_CLASSES_SHOWN], *(["..."] if len(classes) > _MAX_CLASSES_SHOWN else [])]
        facts["classes"] = f"{format_count(len(classes), 'class', 'classes')}: {' '.join(shown)}"
    facts["parameters"] = f"{sum(p.numel() for p in model.parameters()):,} parameters"
    facts |= {"run": str(run), "step": str(step)}
    if best.get("step") == step and isinstance(best.get("value"), (int, float)):
        facts[str(config.get("monitor", "best"))] = f"{best['value']:.4g}"
    facts["device"] = device
    return facts | {f"warning {number}": line for number, line in enumerate(warnings, 1)}


def describe_predictor(facts: Mapping[str, str]) -> str:
    """Return a predictor's facts in one line."""
    plain = {"model", "classes", "parameters"}  # which say themselves what they are
    shown = [
        text if name in plain else f"warning: {text}" if name[:8] == "warning " else f"{name}={text}"
        for name, text in facts.items()
    ]
    return f"Predictor({', '.join(shown)})"


def _cell(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
