"""Which jobs of a sweep are trained as one program: those whose configs differ in numbers only. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

from bigmodel.config import found_later
from bigmodel.sweep import gpus
from bigmodel.sweep.directory import Entry
from bigmodel.sweep.settings import Settings, settled

_NUMBERS = (
    *("seed", "loss.label_smoothing", "task.loss.label_smoothing"),
    *("optim.lr", "optim.weight_decay", "optim.momentum", "optim.betas", "optim.eps"),
)
_LEAST, _MOST = 8, 64  # jobs in a program, where there is a choice: fewer gain little, more take much memory


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


def programs(entries: Iterable[Entry], at_once: int) -> list[list[int]]:
    """Numbers of jobs, each list a program: of every make `at_once`, if they get enough jobs each."""
    makes: dict[str, list[int]] = {}
    for entry in entries:
        makes.setdefault(entry.make or f"job {entry.number}", []).append(entry.number)
    found = []
    for numbers in makes.values():
        count = max(1, min(at_once, len(numbers) // _LEAST), math.ceil(len(numbers) / _MOST))
        found += [numbers[part::count] for part in range(count)]
    return sorted(found)


def settled_for(entries: Collection[Entry], jobs: int | Literal["auto"], on_failure: str, before: int = 0) -> Settings:
    """How these jobs are run, after so many `before` them: as `settled`, for a process a program."""
    kinds, there = {entry.device for entry in entries}, len(gpus.visible())
    how = settled(jobs, on_failure, kinds, before + len(entries), there)
    count = len(programs(entries, how.jobs))
    return how if count == len(entries) else settled(jobs, on_failure, kinds, count, there)


def _without(path: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        full = f"{path}.{key}" if path else str(key)
        if full in _NUMBERS:
            continue
        if isinstance(value, Mapping):
            yield from _without(full, value)
        else:
            yield full, value
