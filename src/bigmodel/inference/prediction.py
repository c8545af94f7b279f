"""What `Predictor.predict` takes besides its inputs, and what it returns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from torch import nn

from bigmodel.config.instantiate import validate
from bigmodel.constraints import NonNegative, PositiveInt, Seed
from bigmodel.errors import ConfigError

_OPTIONS = f"{__name__}.Options"
_CLASSES = 5  # named in a repr
_SAMPLING = "bigmodel.models.decoding.sampling.Sampling"


class Prediction(NamedTuple):
    """One input and the model's answer; both unpack as a pair.

    `input` is the file, the text, or the place in the list that was given. `answer` holds what `bigmodel-predict
    format=json` prints, or `error` alone where the input could not be read.
    """

    input: str
    answer: dict[str, Any]

    @property
    def error(self) -> str | None:
        """Why there is no answer; None where there is one."""
        return self.answer.get("error")


class SampleOptions(TypedDict, total=False):
    """How a language model's next token is drawn: the keys of `sample` in predict.yaml."""

    max_new_tokens: PositiveInt
    temperature: NonNegative
    top_k: PositiveInt | None
    top_p: float | None
    seed: Seed


@dataclass(frozen=True)
class Options:
    """The options of a prediction, as the signature of `Predictor.predict` has them."""

    top: PositiveInt | None = None
    beam: PositiveInt = 8
    sample: Mapping[str, Any] | None = None
    output: str = "generated"
    batch_size: PositiveInt = 64


def validate_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a kind's `predict` takes.

    Raises:
        ConfigError: a line for each unknown name, with the nearest that there is, and for each wrong value.
    """
    given = {key: _plain(value) for key, value in given.items()}
    sample = given.get("sample")
    node = {"_target_": _SAMPLING, **sample} if isinstance(sample, Mapping) else sample
    problems = validate({**given, "sample": node}, _OPTIONS)
    if problems:
        raise ConfigError(*problems)
    asked = {key: value for key, value in given.items() if key != "batch_size"}
    return asked | {"sample": dict(sample) if isinstance(sample, Mapping) else None}


def _plain(value: Any) -> Any:
    """A path as text, a number of numpy's as Python's; all else as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


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
    """A loaded model in one line, for its repr; what the checkpoint does not hold is left out."""
    words = [f"Predictor({type(model).__name__}"]
    task = config.get("task")
    if isinstance(task, Mapping) and "_target_" in task:
        words.append(f"task={str(task['_target_']).split('.')[-2:][0]}")
    if classes is not None:
        shown = [*classes[:_CLASSES], *(["..."] if len(classes) > _CLASSES else [])]
        words.append(f"{len(classes)} classes: {' '.join(shown)}")
    words += [f"{sum(p.numel() for p in model.parameters()):,} parameters", f"run={_run_of(run)}", f"step={step}"]
    if best.get("step") == step and isinstance(best.get("value"), (int, float)):
        words.append(f"{config.get('monitor', 'best')}={best['value']:.4g}")
    words.append(f"device={device}")
    words += [f"warning: {line}" for line in warnings]
    return ", ".join(words) + ")"


def _run_of(checkpoint: Path) -> Path:
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint
