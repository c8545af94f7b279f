"""What jobs must have in common to be trained as one program: all of their configs but numbers that can be stacked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from bigmodel.config import found_later

_NUMBERS = (
    *("seed", "loss.label_smoothing", "task.loss.label_smoothing"),
    *("optim.lr", "optim.weight_decay", "optim.momentum", "optim.betas", "optim.eps"),
)


def refusal(tree: Mapping[str, Any]) -> str | None:
    """Why a job with this config is trained by itself, or None."""
    later = found_later(tree)
    if later:
        return f"{later[0]}=auto is found for each job by itself"
    if tree["profile"]:
        return "profile=true measures one run"
    if tree["device"].get("compile"):
        return "device.compile=true"
    if tree["device"].get("deterministic"):
        return "device.deterministic=true promises the bits of a run by itself"
    return None


def make_of(tree: Mapping[str, Any]) -> str:
    """What is equal for all jobs that differ in numbers only."""
    rest = dict(_without("", tree))
    rest["momentum"] = bool(tree["optim"].get("momentum"))  # without it there is no state
    return hashlib.sha256(json.dumps(rest, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _without(path: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        full = f"{path}.{key}" if path else str(key)
        if full in _NUMBERS:
            continue
        if isinstance(value, Mapping):
            yield from _without(full, value)
        else:
            yield full, "a factor" if path == "lr_scale" else value
