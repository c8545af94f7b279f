"""Steps around an exported model that several processors share; docs/export.md defines every `op`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bigmodel.datasets.audio.mel import LogMel

Step = dict[str, Any]


def class_steps(classes: Sequence[str]) -> list[Step]:
    """Return the steps from logits (N, C) to the most probable class and its probability."""
    return [{"op": "softmax", "axis": 1}, {"op": "argmax", "axis": 1}, {"op": "label", "classes": list(classes)}]


def number_steps(names: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> list[Step]:
    """Return the step from standardized outputs (N, K) to numbers in their own units."""
    return [{"op": "unstandardize", "axis": 1, "columns": list(names), "mean": list(mean), "std": list(std)}]


def label_steps(labels: Sequence[str]) -> list[Step]:
    """Return the steps from logits (N, K) to the probability of each label."""
    return [{"op": "sigmoid"}, {"op": "name_columns", "axis": 1, "names": list(labels)}]


def token_steps(tokenizer: Mapping[str, Any], context: int | None, *, strip: bool) -> list[Step]:
    """Return the steps from a text to int64 (N, T).

    Texts are truncated to `context` tokens; with None, longer ones are an error.
    """
    steps: list[Step] = [{"op": "strip", "characters": None}] if strip else []
    steps.append({"op": "tokenize", "tokenizer": dict(tokenizer)})
    if context is not None:
        steps.append({"op": "truncate", "length": context})
    return [*steps, {"op": "batch", "pad": -1, "dtype": "int64"}]


def sound_steps(features: LogMel) -> list[Step]:
    """Return the steps from a wav file to log-mel frames (T, mels)."""
    return [
        {"op": "decode_sound", "channels": "mean", "range": [-1, 1]},
        {"op": "resample", "rate": features.rate, "method": "fft"},
        {"op": "log_mel", **asdict(features), **features.constants()},
        {"op": "normalize_clip", "least_std": features.constants()["least_std"]},
    ]
