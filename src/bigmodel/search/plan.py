"""What a search is to do, checked before anything is made, and kept with it.

    search.json    sampler, pruner, metrics, the space
    bases/0.yaml   the config of all keys that are not searched: one for each combination of groups, if those are

From here on nothing that is edited elsewhere changes the search.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bigmodel.durable import sync_directory, write_json, write_text
from bigmodel.errors import ConfigError, StorageError
from bigmodel.results.reading import lower_is_better
from bigmodel.run_directory import sealed
from bigmodel.search.space import Parameter
from bigmodel.seeds import derive
from bigmodel.words import clip

_SAMPLERS = ("tpe", "random", "grid", "cmaes")
_PRUNERS = ("none", "median", "hyperband")
_DIRECTIONS = ("maximize", "minimize")
_OF_THE_RUN = ("seconds", "samples_per_s", "step")  # metrics that belong to no split
_TRIALS = 20
_MOST_POINTS = 10_000


@dataclass(frozen=True)
class Plan:
    """`words` are the overrides that all trials share; `bases` are the combinations of groups, in the files' order."""

    sampler: str
    pruner: str
    seed: int
    monitor: str
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    space: tuple[Parameter, ...]
    words: tuple[str, ...]
    bases: tuple[tuple[str, ...], ...]

    def trials(self, wanted: int | None) -> int:
        """How many trials that makes in total."""
        if self.sampler != "grid":
            return wanted or _TRIALS
        return min(_size(self.space), wanted or _MOST_POINTS)

    @cached_property
    def points(self) -> Sequence[Mapping[str, float | str]]:
        """All points of a grid, in random order, as it may be stopped before its end."""
        names = [parameter.name for parameter in self.space]
        axes = [parameter.points() or () for parameter in self.space]
        points = [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]
        random.Random(derive(self.seed, "grid")).shuffle(points)
        return points

    def base(self, given: Mapping[str, float | str]) -> int:
        """The number of the config that these values are laid over."""
        return self.bases.index(tuple(str(given[p.name]) for p in self.space if p.group))

    def listing(self, trials: int) -> Iterator[str]:
        """Lines of a dry run."""
        aims = ", ".join(f"{direction} {name}" for direction, name in zip(self.directions, self.metrics, strict=True))
        pruned = "" if self.pruner == "none" else f", pruned by {self.pruner}"
        yield f"{trials} trials by {self.sampler}{pruned}: {aims}; nothing was started"
        width = max(len(parameter.name) for parameter in self.space)
        yield from (f"{parameter.name:<{width}}  {parameter}" for parameter in self.space)

    def write(self, path: Path, configs: Sequence[str]) -> None:
        (path / "bases").mkdir()
        for number, text in enumerate(configs):
            write_text(path / "bases" / f"{number}.yaml", sealed(text))
        sync_directory(path)
        write_json(path / "search.json", {"schema": 1} | asdict(self))


def planned(given: Mapping[str, Any], space: Sequence[Parameter], words: Sequence[str], monitor: str) -> Plan:
    """From what `hydra.sweeper` says.

    Raises:
        ConfigError: a line for each mistake.
    """
    sampler, pruner, seed = str(given["sampler"]), str(given["pruner"]), given["seed"]
    metrics = _listed(given["metrics"]) or (monitor,)
    directions = _listed(given["directions"]) or tuple(_DIRECTIONS[lower_is_better(name)] for name in metrics)
    bases = tuple(itertools.product(*(parameter.words for parameter in space if parameter.group)))
    plan = Plan(sampler, pruner, seed, monitor, metrics, directions, tuple(space), tuple(words), bases)
    problems = [f"hydra.sweeper.{line}" for line in (*_wrong(plan), *_wrong_count(given["n_trials"]))]
    if not space:
        problems.append("nothing to search: give a key an interval, a range or choices, as optim.lr=interval(0.01,0.1)")
    if sampler == "grid":
        problems += [
            f"{parameter.name}: a grid needs single values, not an interval; use choice or range"
            for parameter in space
            if parameter.points() is None
        ]
        if _size(space) > _MOST_POINTS:
            problems.append(f"the grid has {_size(space)} points; at most {_MOST_POINTS} can be tried")
    if problems:
        raise ConfigError(*problems)
    return plan


def read(path: Path) -> Plan:
    """The plan of a search that was started before.

    Raises:
        StorageError: it is damaged.
    """
    file = path / "search.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        plan = Plan(
            sampler=str(known["sampler"]),
            pruner=str(known["pruner"]),
            seed=int(known["seed"]),
            monitor=str(known["monitor"]),
            metrics=_listed(known["metrics"]),
            directions=_listed(known["directions"]),
            space=tuple(Parameter(**{key: _tuples(value) for key, value in one.items()}) for one in known["space"]),
            words=_listed(known["words"]),
            bases=tuple(map(_listed, known["bases"])),
        )
        problems = [*_wrong(plan)]
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        problems = [str(error)]
    if problems:
        raise StorageError(f"{file}: damaged: {clip(problems[0])}; start the search anew")
    return plan


def count(given: Any) -> int | None:
    """`n_trials`, checked. Raises ConfigError."""
    problems = [*_wrong_count(given)]
    if problems:
        raise ConfigError(*(f"hydra.sweeper.{line}" for line in problems))
    return None if given is None else int(given)


def _wrong_count(given: Any) -> Iterator[str]:
    text = str(given)
    if given is not None and not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        yield f"n_trials: must be a whole number at least 1, not {clip(text)}"


def _wrong(plan: Plan) -> Iterator[str]:
    for name, value, choices in (("sampler", plan.sampler, _SAMPLERS), ("pruner", plan.pruner, _PRUNERS)):
        if value not in choices:
            yield f"{name}: there is no '{clip(value)}'; choices: {', '.join(choices)}"
    if type(plan.seed) is not int or plan.seed < 0:
        yield f"seed: must be a whole number at least 0, not {clip(plan.seed)}"
    for name in plan.metrics:
        if name.startswith("test/"):
            yield f"metrics: {clip(name)} is for the end; search by val/{clip(name.partition('/')[2])}"
        elif "/" not in name and name not in _OF_THE_RUN:
            yield f"metrics: there is no '{clip(name)}'; write val/{clip(name)}, or one of {', '.join(_OF_THE_RUN)}"
    if len(plan.directions) != len(plan.metrics) or not set(plan.directions) <= set(_DIRECTIONS):
        yield "directions: needs maximize or minimize for each of the metrics"
    if plan.pruner != "none" and (len(plan.metrics) > 1 or "/" not in plan.metrics[0]):
        yield f"pruner: {clip(plan.pruner)} goes by one metric of a split, not by {clip(', '.join(plan.metrics))}"
    if plan.sampler == "cmaes" and len(plan.metrics) > 1:
        yield f"sampler: cmaes seeks one metric, not {len(plan.metrics)}; use tpe"
    if plan.sampler == "cmaes" and all(parameter.kind == "choice" for parameter in plan.space):
        yield "sampler: cmaes needs an interval or a range; for choices alone use tpe"


def _size(space: Sequence[Parameter]) -> int:
    """Points of a grid; an interval counts as one."""
    return math.prod(len(parameter.points() or (0,)) for parameter in space)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(given: Any) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(map(str, given))
