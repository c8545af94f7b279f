"""Group runs that differ only in their seed, and find the keys in which configs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigmodel.config.neutral_keys import ADDED_LATER, WITHOUT_EFFECT_UNLESS, is_equal_in_comparisons
from bigmodel.runs.records import RunRecord

_ABSENT = object()


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one configuration, one for each seed, in the order of their seeds; `config` is without the seed."""

    config: Mapping[str, Any]
    runs: tuple[RunRecord, ...]
    repeated: int = 0  # number of runs left out because another one has their seed

    def values(self, metric: str) -> dict[Any, float]:
        """Return the metric by seed, of the runs that finished and have it."""
        found = {_hashable(run.config.get("seed")): run.metrics.get(metric) for run in self.runs if run.finished}
        return {seed: value for seed, value in found.items() if value is not None}


def group_by_config(runs: Sequence[RunRecord]) -> list[SeedGroup]:
    """Group runs by their config without the seed, in the order of each group's first run.

    If a seed was run twice, the newest finished run counts: a repetition is no new evidence.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run, config in zip(runs, _without_added_keys([run.config for run in runs]), strict=True):
        groups.setdefault(_identity(_result_keys(config)), []).append(run)
    return [_seed_group(members) for members in groups.values()]


def _seed_group(runs: Sequence[RunRecord]) -> SeedGroup:
    oldest_first = sorted(runs, key=lambda run: (run.finished, run.started))
    by_seed = {_identity(run.config.get("seed")): run for run in oldest_first}
    kept = sorted(by_seed.values(), key=_seed_order)
    return SeedGroup(_result_keys(runs[0].config), tuple(kept), len(runs) - len(kept))


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values differ between configs; keys that repeat another key's values are left out."""
    configs = _without_added_keys(configs)
    keys = dict.fromkeys(key for config in configs for key in config)
    columns = {key: [_identity(config.get(key, _ABSENT)) for config in configs] for key in keys}
    differing = {key: column for key, column in columns.items() if len(set(column)) > 1}
    return [
        key
        for key, column in differing.items()
        if not any(differing.get(origin) == column for origin in _possible_origins(key))
    ]


def varied_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the differing keys that were chosen: not `model.hidden` if it has one value for each model."""
    keys = differing_keys(configs)
    return [
        key
        for key in keys
        if not any(parent in keys and _is_determined_by(key, parent, configs) for parent in _parents(key))
    ]


def format_value(value: Any) -> str:
    """Return a config value as it is typed on a command line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(format_value, value))}]"
    return str(value)


def _result_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "seed" and not is_equal_in_comparisons(key)}


def _without_added_keys(configs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out keys of `ADDED_LATER` that some config lacks, where they mean the same as lacking them."""
    lacking = {key for key in ADDED_LATER if any(key not in config for config in configs)}

    def means_the_same(key: str, config: Mapping[str, Any]) -> bool:
        condition = WITHOUT_EFFECT_UNLESS.get(key)
        return config[key] == ADDED_LATER[key] or (condition is not None and config.get(condition) is None)

    return [
        {key: value for key, value in config.items() if key not in lacking or not means_the_same(key, config)}
        for config in configs
    ]


def _possible_origins(key: str) -> list[str]:
    """Return the keys that this one may repeat: `loss.x` for `task.loss.x`, `dataset.size` for `model.size`."""
    parts = key.split(".")
    origins = [".".join(parts[i:]) for i in range(1, len(parts))]
    return origins + [f"dataset.{parts[-1]}"] * (parts[0] != "dataset")


def _parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _is_determined_by(key: str, parent: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the parent's value determines the key's value."""
    pairs = {(_identity(config.get(parent, _ABSENT)), _identity(config.get(key, _ABSENT))) for config in configs}
    return len(pairs) == len({value for value, _ in pairs})


def _identity(value: Any) -> str:
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True, default=str)


def _hashable(value: Any) -> Any:
    """Return the value, or its text if a damaged config has, for example, a list as its seed."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else _identity(value)


def _seed_order(run: RunRecord) -> tuple[bool, float, str]:
    seed = run.config.get("seed")
    return (False, seed, "") if isinstance(seed, (int, float)) else (True, 0, str(seed))
