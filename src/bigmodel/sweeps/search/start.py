"""Prepare a new search: validate its space, its options and its base configs before anything is created."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from bigmodel.config.config import Config
from bigmodel.config.validation import check_composed, validate_config
from bigmodel.errors import ConfigError
from bigmodel.sweeps.search.objective import Specs, task_specs, warn_doubtful
from bigmodel.sweeps.search.plan import SearchPlan, make_plan
from bigmodel.sweeps.search.space import Dimension, parse_dimension
from bigmodel.sweeps.search.study import import_optuna

_MAX_BASES = 100
ComposeBases = Callable[[Sequence[str], Sequence[Sequence[str]]], Iterable[Any]]
"""Composes the config of the given overrides with each combination of the alternatives."""


def prepare_search(
    sweeper: Mapping[str, Any],
    overrides: Mapping[str, Any],
    groups: set[str],
    bases: ComposeBases,
    trust: Sequence[str],
    has_seed_axis: bool = False,
    is_local: bool = True,
) -> tuple[SearchPlan, list[Config], list[str]]:
    """Return the plan, the base configs and warnings.

    There is a base config for each combination of the searched config groups, with the first values of the other keys.
    `sweeper` are the options of `hydra.sweeper`; `overrides` are as Hydra has parsed them; with `has_seed_axis`, seeds
    are among them. The data is read where the trials run on this machine.

    Raises:
        ConfigError: a line for each mistake, or Optuna is not installed.
        DataError: the data is missing or damaged.
    """
    overrides = dict(overrides)
    seeds = [int(text) for text in overrides.pop("seed").sweep_string_iterator()] if has_seed_axis else []
    space = _parse_space(overrides, groups)
    fixed = [str(override.input_line) for override in overrides.values() if not override.is_sweep_override()]
    fixed += [f"seed={seeds[0]}"] if seeds else []
    alternatives = [[f"{one.name}={choice}" for choice in one.choices] for one in space if one.group]
    num_bases = prod(map(len, alternatives))
    if num_bases > _MAX_BASES:
        raise ConfigError(f"{num_bases} combinations of groups; at most {_MAX_BASES} are searched")
    space, configs = _compose_bases(space, fixed, alternatives, bases, trust)
    problems = [line for config in configs for line in validate_config(config, "train")]
    if not problems:
        problems = [*_extremes_problems(configs, space)]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    tasks = _distinct_task_specs(configs, is_local)
    plan = make_plan(sweeper, space, fixed, str(configs[0].values["monitor"]), tasks, seeds)
    import_optuna(plan.sampler)
    is_limited = configs[0].values["limit_batches"] is not None
    return plan, configs, [*warn_doubtful(plan.metrics, plan.directions, space, tasks, is_limited)]


def _compose_bases(
    space: Sequence[Dimension],
    fixed: Sequence[str],
    alternatives: Sequence[Sequence[str]],
    bases: ComposeBases,
    trust: Sequence[str],
) -> tuple[list[Dimension], list[Config]]:
    """Compose the base configs; return each dimension with the indices of those that have its key, and the configs."""
    single = [one for one in space if not one.group]
    first = {one.name: f"{one.name}={one.extremes()[0]}" for one in single}
    added = [text for name, text in first.items() if name.startswith("+")]
    configs = [check_composed(composed, "train", trust)[0] for composed in bases([*fixed, *added], alternatives)]
    having = {one.name: [index for index, config in enumerate(configs) if config.has(one.key)] for one in single}
    if not all(having.values()):  # a key exists in no config: composing with all keys raises Hydra's message about it
        composed_with_all = bases([*fixed, *first.values()], alternatives)
        return [*space], [check_composed(composed, "train", trust)[0] for composed in composed_with_all]
    with_first = []
    for index, config in enumerate(configs):
        values = {one.key: one.config_value(one.extremes()[0]) for one in single if index in having[one.name]}
        with_first.append(config.with_values(values))
    only = {name: tuple(indices) for name, indices in having.items() if len(indices) < len(configs)}
    return [replace(one, only=only.get(one.name, ())) for one in space], with_first


def _distinct_task_specs(configs: Sequence[Config], is_local: bool) -> list[Specs]:
    """Return what each distinct pair of task and dataset declares of its metrics."""
    found: dict[str, Specs] = {}
    for config in configs:
        key = json.dumps([config.to_dict()["dataset"], config.to_dict()["task"]], sort_keys=True, default=str)
        if key not in found:
            found[key] = task_specs(config, is_local)
    return [*found.values()]


def _parse_space(overrides: Mapping[str, Any], groups: set[str]) -> list[Dimension]:
    space, problems = [], list[str]()
    for name, override in overrides.items():
        if override.is_sweep_override():
            try:
                space.append(parse_dimension(override, name in groups))
            except ConfigError as error:
                problems += error.lines
    if problems:
        raise ConfigError(*problems)
    return space


def _extremes_problems(configs: Sequence[Config], space: Sequence[Dimension]) -> Iterator[str]:
    """Yield what is wrong with the extremes of each dimension, with the first values of the others."""
    for one in space:
        config = configs[one.only[0] if one.only else 0]
        for value in () if one.group else one.extremes():
            yield from validate_config(config.with_values({one.key: one.config_value(value)}), "train")
