"""Check the numbers in a checkpoint's `state.json`: values that no run writes are damage, even under a valid hash."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bigmodel.errors import StorageError
from bigmodel.formatting import truncate

_MAX_STEPS = 2**63
_MAX_SUMS = 10_000


def check_state(path: Path, state: Any, step: Any) -> None:
    """Check the numbers that a resume reads, where present.

    Raises:
        StorageError: a number is not one that a run writes at this `step`.
    """
    if not isinstance(state, dict):
        raise StorageError(f"{path / 'state.json'}: holds no keys")
    problem = _problem(state, step)
    if problem:
        raise StorageError(f"{path / 'state.json'}: {problem}")


def _problem(state: dict[str, Any], step: Any) -> str | None:
    if not _is_count(state.get("step", 0)) or state.get("step", step) != step:
        return f"step is {truncate(state['step'], 40)}, where the manifest has {truncate(step, 40)}"
    if not _is_count(state.get("steps", 0)):
        return f"steps is {truncate(state['steps'], 40)}, not a number of steps"
    tally = state.get("tally")  # named sums; earlier versions wrote a list
    sums = list(tally.values()) if isinstance(tally, dict) else tally
    if sums is not None and not (isinstance(sums, list) and len(sums) < _MAX_SUMS and all(map(_is_finite, sums))):
        return f"tally is {truncate(tally, 40)}, not finite numbers by name"
    best = state.get("best", {})
    if best in ({}, None):
        return None
    if not isinstance(best, dict) or not {"value", "step"} <= best.keys():
        return f"best is {truncate(best, 40)}, and lacks value or step"
    if not _is_finite(best["value"]):
        return f"best.value is {truncate(best['value'], 40)}, no finite number"
    if not _is_count(best["step"]) or not _is_count(best.get("since", 0)):
        return f"best is {truncate(best, 80)}, at no step of a run"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_STEPS


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < _MAX_STEPS if isinstance(value, int) else math.isfinite(value)
