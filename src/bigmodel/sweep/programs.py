"""Which jobs of a sweep are trained as one program: those whose configs differ in numbers only. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from bigmodel.sweep import gpus
from bigmodel.sweep.directory import Entry
from bigmodel.sweep.settings import Settings, settled

_LEAST, _MOST = 8, 64  # jobs in a program, where there is a choice: fewer gain little, more take much memory


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


def settled_for(
    entries: Collection[Entry],
    jobs: int | Literal["auto"],
    on_failure: str,
    wanted: int,
    engine: str,
    options: Mapping[str, Any],
) -> Settings:
    """How these jobs are run, of `wanted` in the end: as `settled`, for a process a program."""
    kinds, there = {entry.device for entry in entries}, len(gpus.visible())
    how = settled(jobs, on_failure, kinds, wanted, there, engine, options)
    count = len(programs(entries, how.jobs))
    return how if count == len(entries) else settled(jobs, on_failure, kinds, count, there, engine, options)
