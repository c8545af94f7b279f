"""Points: runs of one config that differ in their seed alone. And in what configs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigmodel.config.neutral_keys import is_equal_in_comparisons
from bigmodel.runs.records import RunRecord

_ABSENT = object()


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one config, one for each seed, in the order of their seeds; `config` is without the seed."""

    config: Mapping[str, Any]
    runs: tuple[RunRecord, ...]
    repeated: int = 0  # runs left out, whose seed another has

    def values(self, metric: str) -> dict[Any, float]:
        """The metric by seed, of the runs that finished and have it."""
        found = {_hashable(run.config.get("seed")): run.metrics.get(metric) for run in self.runs if run.finished}
        return {seed: value for seed, value in found.items() if value is not None}


def group_by_config(runs: Sequence[RunRecord]) -> list[SeedGroup]:
    """The points of these runs, in the order of their first runs.

    Where a seed was run twice the newest finished run counts: the other says the same again, and is no new evidence.
    """
    points: dict[str, list[RunRecord]] = {}
    for run in runs:
        points.setdefault(_identity(_result_keys(run.config)), []).append(run)
    return [_point(alike) for alike in points.values()]


def _point(alike: Sequence[RunRecord]) -> SeedGroup:
    oldest_first = sorted(alike, key=lambda run: (run.finished, run.started))
    by_seed = {_identity(run.config.get("seed")): run for run in oldest_first}
    chosen = sorted(by_seed.values(), key=_seed)
    return SeedGroup(_result_keys(alike[0].config), tuple(chosen), len(alike) - len(chosen))


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all configs; a fact that one key takes from another is told once."""
    keys = dict.fromkeys(key for config in configs for key in config)
    columns = {key: [_identity(config.get(key, _ABSENT)) for config in configs] for key in keys}
    found = {key: column for key, column in columns.items() if len(set(column)) > 1}
    return [key for key, column in found.items() if not any(found.get(origin) == column for origin in _origins(key))]


def varied_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the differing keys those that were chosen: `model.hidden` is not, where every model has one value of it."""
    keys = differing_keys(configs)
    return [
        key
        for key in keys
        if not any(parent in keys and _is_determined_by(key, parent, configs) for parent in _above(key))
    ]


def shown(value: Any) -> str:
    """A config's value as YAML writes it on a line, and as it is typed."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(shown, value))}]"
    return str(value)


def _result_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "seed" and not is_equal_in_comparisons(key)}


def _origins(key: str) -> list[str]:
    """Keys that this one may repeat: `loss.x` of `task.loss.x`, `dataset.num_classes` of `model.num_classes`."""
    parts = key.split(".")
    origins = [".".join(parts[i:]) for i in range(1, len(parts))]
    return origins + [f"dataset.{parts[-1]}"] * (parts[0] != "dataset")


def _above(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _is_determined_by(key: str, parent: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the parent's value alone says what the key's is."""
    pairs = {(_identity(config.get(parent, _ABSENT)), _identity(config.get(key, _ABSENT))) for config in configs}
    return len(pairs) == len({value for value, _ in pairs})


def _identity(value: Any) -> str:
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True, default=str)


def _hashable(value: Any) -> Any:
    """The value, or its text where a stranger's config has a list for a seed."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else _identity(value)


def _seed(run: RunRecord) -> tuple[bool, float, str]:
    seed = run.config.get("seed")
    return (False, seed, "") if isinstance(seed, (int, float)) else (True, 0, str(seed))
