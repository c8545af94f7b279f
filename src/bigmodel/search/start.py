"""A new search, checked whole before anything is made: its space, its options, and the configs it is laid over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

from bigmodel.config import Config, checked, problems_of
from bigmodel.errors import ConfigError
from bigmodel.search.plan import Plan, planned
from bigmodel.search.space import Parameter, parameter
from bigmodel.search.study import library

_MOST_BASES = 100
Bases = Callable[[Sequence[str], Sequence[Sequence[str]]], Iterable[Any]]


def prepared(
    given: Mapping[str, Any], overrides: Mapping[str, Any], groups: set[str], bases: Bases, trust: Sequence[str]
) -> tuple[Plan, list[Config]]:
    """The plan, and a config for each combination of the searched groups, with the first values of the other keys.

    `given` is what `hydra.sweeper` says; `overrides` are as Hydra has parsed them; `bases` composes.

    Raises:
        ConfigError: a line for each mistake, or Optuna is not installed.
    """
    space = _space(overrides, groups)
    words = [str(override.input_line) for override in overrides.values() if not override.is_sweep_override()]
    first = [f"{one.name}={one.ends()[0]}" for one in space if not one.group]
    alternatives = [[f"{one.name}={word}" for word in one.words] for one in space if one.group]
    if prod(map(len, alternatives)) > _MOST_BASES:
        raise ConfigError(f"{prod(map(len, alternatives))} combinations of groups; at most {_MOST_BASES} are searched")
    found = [checked(composed, "train", trust) for composed in bases([*words, *first], alternatives)]
    configs, problems = [config for config, _ in found], [line for _, lines in found for line in lines]
    if not problems:
        problems = [*_refused(configs[0], space)]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    plan = planned(given, space, words, str(configs[0].tree["monitor"]))
    library(plan.sampler)
    return plan, configs


def _space(overrides: Mapping[str, Any], groups: set[str]) -> list[Parameter]:
    space, problems = [], list[str]()
    for name, override in overrides.items():
        if override.is_sweep_override():
            try:
                space.append(parameter(override, name in groups))
            except ConfigError as error:
                problems += error.lines
    if problems:
        raise ConfigError(*problems)
    return space


def _refused(config: Config, space: Sequence[Parameter]) -> Iterator[str]:
    """What is wrong with the ends of each parameter, with the first values of the others."""
    for one in space:
        for end in () if one.group else one.ends():
            yield from problems_of(config.with_facts({one.key: one.value(end)}), "train")
