"""A new search, checked whole before anything is made: its space, its options, and the configs it is laid over."""

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
from bigmodel.tasks.number_defaults import monitor_of

_MOST_BASES = 100
Bases = Callable[[Sequence[str], Sequence[Sequence[str]]], Iterable[Any]]


def prepare_search(
    given: Mapping[str, Any],
    overrides: Mapping[str, Any],
    groups: set[str],
    bases: Bases,
    trust: Sequence[str],
    seeded: bool = False,
    here: bool = True,
) -> tuple[SearchPlan, list[Config], list[str]]:
    """The plan, a config for each combination of the searched groups, with the first values of the other keys, and
    lines on what is hardly meant.

    `given` is what `hydra.sweeper` says; `overrides` are as Hydra has parsed them, with `seeded` an axis of seeds among
    them; `bases` composes. The data is read where the trials run `here`.

    Raises:
        ConfigError: a line for each mistake, or Optuna is not installed.
        DataError: the data is missing or damaged.
    """
    overrides = dict(overrides)
    seeds = [int(word) for word in overrides.pop("seed").sweep_string_iterator()] if seeded else []
    space = _space(overrides, groups)
    words = [str(override.input_line) for override in overrides.values() if not override.is_sweep_override()]
    words += [f"seed={seeds[0]}"] if seeds else []
    alternatives = [[f"{one.name}={word}" for word in one.words] for one in space if one.group]
    if prod(map(len, alternatives)) > _MOST_BASES:
        raise ConfigError(f"{prod(map(len, alternatives))} combinations of groups; at most {_MOST_BASES} are searched")
    space, configs = _laid_out(space, words, alternatives, bases, trust)
    problems = [line for config in configs for line in validate_config(config, "train")]
    if not problems:
        problems = [*_refused(configs, space)]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    tasks = _tasks(configs, here)
    plan = make_plan(given, space, words, monitor_of(configs[0].values), tasks, seeds)
    import_optuna(plan.sampler)
    limited = configs[0].values["limit_batches"] is not None
    return plan, configs, [*warn_doubtful(plan.metrics, plan.directions, space, tasks, limited)]


def _laid_out(
    space: Sequence[Dimension],
    words: Sequence[str],
    alternatives: Sequence[Sequence[str]],
    bases: Bases,
    trust: Sequence[str],
) -> tuple[list[Dimension], list[Config]]:
    """The parameters, each with the combinations of groups that have its key, and the configs of those combinations."""
    single = [one for one in space if not one.group]
    first = {one.name: f"{one.name}={one.extremes()[0]}" for one in single}
    new = [text for name, text in first.items() if name.startswith("+")]
    bare = [check_composed(composed, "train", trust)[0] for composed in bases([*words, *new], alternatives)]
    having = {one.name: [n for n, config in enumerate(bare) if config.has(one.key)] for one in single}
    if not all(having.values()):  # Hydra says what is wrong with a key that is nowhere
        everything = bases([*words, *first.values()], alternatives)
        return [*space], [check_composed(composed, "train", trust)[0] for composed in everything]
    configs = []
    for number, config in enumerate(bare):
        values = {one.key: one.value(one.extremes()[0]) for one in single if number in having[one.name]}
        configs.append(config.with_values(values))
    everywhere = len(bare)
    only = {name: tuple(numbers) for name, numbers in having.items() if len(numbers) < everywhere}
    return [replace(one, only=only.get(one.name, ())) for one in space], configs


def _tasks(configs: Sequence[Config], here: bool) -> list[Specs]:
    """What the task of each config declares; configs of one task and one dataset are asked once."""
    known: dict[str, Specs] = {}
    for config in configs:
        key = json.dumps([config.to_dict()["dataset"], config.to_dict()["task"]], sort_keys=True, default=str)
        if key not in known:
            known[key] = task_specs(config, here)
    return [*known.values()]


def _space(overrides: Mapping[str, Any], groups: set[str]) -> list[Dimension]:
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


def _refused(configs: Sequence[Config], space: Sequence[Dimension]) -> Iterator[str]:
    """What is wrong with the ends of each parameter, with the first values of the others."""
    for one in space:
        config = configs[one.only[0] if one.only else 0]
        for end in () if one.group else one.extremes():
            yield from validate_config(config.with_values({one.key: one.value(end)}), "train")
