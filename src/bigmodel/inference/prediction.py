"""Results of `Predictor.predict`, and the one-line description of a predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

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


def describe_predictor(
    *,
    model: nn.Module,
    config: Mapping[str, Any],
    classes: Sequence[str] | None,
    run: Path,
    step: int,
    best: Mapping[str, Any],
    device: str,
    warnings: Sequence[str],
) -> str:
    """Describe a loaded model in one line; facts that the checkpoint lacks are left out."""
    parts = [f"Predictor({type(model).__name__}"]
    task = config.get("task")
    if isinstance(task, Mapping) and "_target_" in task:
        parts.append(f"task={str(task['_target_']).split('.')[-2:][0]}")
    if classes is not None:
        shown = [*classes[:_MAX_CLASSES_SHOWN], *(["..."] if len(classes) > _MAX_CLASSES_SHOWN else [])]
        parts.append(f"{len(classes)} classes: {' '.join(shown)}")
    parts.append(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    parts.append(f"run={run}")
    parts.append(f"step={step}")
    if best.get("step") == step and isinstance(best.get("value"), (int, float)):
        parts.append(f"{config.get('monitor', 'best')}={best['value']:.4g}")
    parts.append(f"device={device}")
    parts += [f"warning: {line}" for line in warnings]
    return ", ".join(parts) + ")"
