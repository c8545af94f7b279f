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

from bigmodel.config.seal import seal
from bigmodel.errors import ConfigError, StorageError
from bigmodel.formatting import truncate
from bigmodel.metric_spec import STANDARD
from bigmodel.safe_files import fsync_directory, own_folder, read_text, write_json, write_text
from bigmodel.seeds import derive
from bigmodel.sweeps.search.objective import Specs, resolve_directions
from bigmodel.sweeps.search.space import Dimension

_SAMPLERS = ("tpe", "random", "grid", "cmaes")
_PRUNERS = ("none", "median", "hyperband")
_DIRECTIONS = ("maximize", "minimize")
_TRIALS = 20
_MOST_POINTS = 10_000
_MANY = 10**9  # configurations, where they are too many to be counted


@dataclass(frozen=True)
class SearchPlan:
    """`words` are the overrides that all trials share; `bases` are the combinations of groups, in the files' order.
    With `seeds` a trial is a job for each of them, and reaches their mean.
    """

    sampler: str
    pruner: str
    seed: int
    monitor: str
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    space: tuple[Dimension, ...]
    words: tuple[str, ...]
    bases: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Jobs of one trial."""
        return max(1, len(self.seeds))

    def trials(self, wanted: int | None) -> int:
        """How many trials that makes in total: never more than there are configurations."""
        usual = _MOST_POINTS if self.sampler == "grid" else _TRIALS
        return min(wanted or usual, len(self.points) or _MANY)

    def fewer(self, wanted: int | None) -> list[str]:
        """A line where there are fewer configurations than trials are wanted, so that nothing is trained twice."""
        count, usual = self.trials(wanted), None if self.sampler == "grid" else _TRIALS
        if count == (wanted or usual or count):
            return []
        asked = f"n_trials={wanted}" if wanted else f"the usual {usual}"
        what = "the grid" if self.sampler == "grid" else "the space"
        return [f"{what} has {count} configurations: {count} trials, not {asked}"]

    @cached_property
    def points(self) -> Sequence[Mapping[str, float | str]]:
        """All different configurations, in random order, as a grid may be stopped before its end; none where they are
        too many to be counted.
        """
        axes = [parameter.points() for parameter in self.space]
        if None in axes or _size(self.space) > _MOST_POINTS:
            return []
        names = [parameter.name for parameter in self.space]
        points = [dict(zip(names, values, strict=True)) for values in itertools.product(*filter(None, axes))]
        points = [{name: value for name, value in point.items() if name in self.active(point)} for point in points]
        points = [*{self.identity(point): point for point in reversed(points)}.values()][::-1]
        random.Random(derive(self.seed, "grid")).shuffle(points)
        return points

    def base_index(self, given: Mapping[str, float | str]) -> int:
        """The number of the config that these values are laid over."""
        return self.bases.index(tuple(str(given[p.name]) for p in self.space if p.group))

    def active(self, given: Mapping[str, float | str]) -> list[str]:
        """The names of the parameters that go with the chosen groups."""
        base = self.base_index(given)
        return [one.name for one in self.space if not one.only or base in one.only]

    def suggest(self, trial: Any) -> dict[str, float | str]:
        """What an Optuna trial gives the parameters; those that depend on a group's choice come after it."""
        if not any(one.only for one in self.space):
            return {one.name: one.suggest(trial) for one in self.space}
        given = {one.name: one.suggest(trial) for one in self.space if one.group}
        active = self.active(given)
        return given | {one.name: one.suggest(trial) for one in self.space if not one.group and one.name in active}

    def identity(self, given: Mapping[str, float | str]) -> str:
        """A text that is the same for the same configuration."""
        values = {one.key: one.value(given[one.name]) for one in self.space if one.name in given}
        return json.dumps([self.base_index(given), values], sort_keys=True, default=str)

    def describe_search(self, trials: int) -> Iterator[str]:
        """Lines of a dry run."""
        aims = ", ".join(f"{direction} {name}" for direction, name in zip(self.directions, self.metrics, strict=True))
        pruned = "" if self.pruner == "none" else f", pruned by {self.pruner}"
        yield f"{trials} trials by {self.sampler}{pruned}: {aims}; nothing was started"
        width = max(len(parameter.name) for parameter in self.space)
        yield from (f"{parameter.name:<{width}}  {parameter}{self._condition(parameter)}" for parameter in self.space)
        if self.seeds:
            yield f"each trial {self.width} times, with seed={','.join(map(str, self.seeds))}: the mean is what counts"

    def _condition(self, parameter: Dimension) -> str:
        """Of a parameter that goes with some groups' choices only: with which."""
        groups = [one.name for one in self.space if one.group]
        combinations = [self.bases[number] for number in parameter.only]
        told = (
            " ".join(f"{group}={word}" for group, word in zip(groups, words, strict=True)) for words in combinations
        )
        return f", only with {' or '.join(told)}" if parameter.only else ""

    def write(self, path: Path, configs: Sequence[str]) -> None:
        own_folder(path / "bases")
        for number, text in enumerate(configs):
            write_text(path / "bases" / f"{number}.yaml", seal(text))
        fsync_directory(path)
        write_json(path / "search.json", {"schema": 1} | asdict(self))


def make_plan(
    given: Mapping[str, Any],
    space: Sequence[Dimension],
    words: Sequence[str],
    monitor: str,
    tasks: Sequence[Specs] = (STANDARD,),
    seeds: Sequence[int] = (),
) -> SearchPlan:
    """From what `hydra.sweeper` says; `tasks` are what the searched tasks declare of their metrics.

    Raises:
        ConfigError: a line for each mistake.
    """
    sampler, pruner, seed = str(given["sampler"]), str(given["pruner"]), given["seed"]
    metrics = _listed(given["metrics"]) or (monitor,)
    ways, wrong = resolve_directions(metrics, _listed(given["directions"]), tasks)
    wished = _listed(given["directions"]) or tuple(ways)
    bases = tuple(itertools.product(*(parameter.words for parameter in space if parameter.group)))
    plan = SearchPlan(sampler, pruner, seed, monitor, metrics, wished, tuple(space), tuple(words), bases, tuple(seeds))
    problems = [f"hydra.sweeper.{line}" for line in (*wrong, *_wrong(plan), *_wrong_count(given["n_trials"]))]
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


def read(path: Path) -> SearchPlan:
    """The plan of a search that was started before.

    Raises:
        StorageError: it is damaged.
    """
    file = path / "search.json"
    try:
        known = json.loads(read_text(file))
        plan = SearchPlan(
            sampler=str(known["sampler"]),
            pruner=str(known["pruner"]),
            seed=int(known["seed"]),
            monitor=str(known["monitor"]),
            metrics=_listed(known["metrics"]),
            directions=_listed(known["directions"]),
            space=tuple(Dimension(**{key: _tuples(value) for key, value in one.items()}) for one in known["space"]),
            words=_listed(known["words"]),
            bases=tuple(map(_listed, known["bases"])),
            seeds=tuple(map(int, known.get("seeds", ()))),
        )
        problems = [*_wrong(plan)]
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        problems = [str(error)]
    if problems:
        raise StorageError(f"{file}: damaged: {truncate(problems[0])}; start the search anew")
    return plan


def parse_n_trials(given: Any) -> int | None:
    """`n_trials`, checked. Raises ConfigError."""
    problems = [*_wrong_count(given)]
    if problems:
        raise ConfigError(*(f"hydra.sweeper.{line}" for line in problems))
    return None if given is None else int(given)


def _wrong_count(given: Any) -> Iterator[str]:
    text = str(given)
    if given is not None and not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        yield f"n_trials: must be a whole number at least 1, not {truncate(text)}"


def _wrong(plan: SearchPlan) -> Iterator[str]:
    for name, value, choices in (("sampler", plan.sampler, _SAMPLERS), ("pruner", plan.pruner, _PRUNERS)):
        if value not in choices:
            yield f"{name}: there is no '{truncate(value)}'; choices: {', '.join(choices)}"
    if type(plan.seed) is not int or plan.seed < 0:
        yield f"seed: must be a whole number at least 0, not {truncate(plan.seed)}"
    if len(plan.directions) != len(plan.metrics) or not set(plan.directions) <= set(_DIRECTIONS):
        yield "directions: needs maximize or minimize for each of the metrics"
    if plan.pruner != "none" and (len(plan.metrics) > 1 or "/" not in plan.metrics[0]):
        metrics = truncate(", ".join(plan.metrics))
        yield f"pruner: {truncate(plan.pruner)} goes by one metric of a split, not by {metrics}"
    if plan.pruner != "none" and plan.seeds:
        yield f"pruner: {truncate(plan.pruner)} stops one run, and a trial is the mean of {plan.width}; leave one out"
    if plan.sampler == "cmaes" and len(plan.metrics) > 1:
        yield f"sampler: cmaes seeks one metric, not {len(plan.metrics)}; use tpe"
    if plan.sampler == "cmaes" and all(parameter.kind == "choice" for parameter in plan.space):
        yield "sampler: cmaes needs an interval or a range; for choices alone use tpe"


def _size(space: Sequence[Dimension]) -> int:
    """Points of a grid; an interval counts as one."""
    return math.prod(len(parameter.points() or (0,)) for parameter in space)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(given: Any) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(map(str, given))
