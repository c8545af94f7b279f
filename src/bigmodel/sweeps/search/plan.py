"""Plan of a search: validated before anything is created, and saved in the sweep's directory.

    search.json    sampler, pruner, metrics, the space
    bases/0.yaml   the config of all keys that are not searched, for each combination of searched config groups

No later edit of other files changes the search.
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
from bigmodel.formatting import format_count, truncate
from bigmodel.metric_spec import STANDARD
from bigmodel.safe_files import fsync_directory, own_folder, read_text, write_json, write_text
from bigmodel.seeds import derive
from bigmodel.sweeps.search.objective import Specs, resolve_directions
from bigmodel.sweeps.search.space import Dimension

Point = Mapping[str, float | str]  # suggested values by the names of their dimensions
_SAMPLERS = ("tpe", "random", "grid", "cmaes")
_PRUNERS = ("none", "median", "hyperband")
_DIRECTIONS = ("maximize", "minimize")
_DEFAULT_TRIALS = 20
_MAX_POINTS = 10_000  # of a space that is enumerated
_UNLIMITED = 10**9  # trials in a space that is too large to enumerate


@dataclass(frozen=True)
class SearchPlan:
    """Settings of a search.

    `fixed_overrides` are those that all trials have; `bases` are the combinations of searched config groups, in the
    order of their files. With `seeds`, a trial is one job for each seed, and its value is their mean.
    """

    sampler: str
    pruner: str
    seed: int
    monitor: str
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    space: tuple[Dimension, ...]
    fixed_overrides: tuple[str, ...]
    bases: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...] = ()

    @property
    def jobs_per_trial(self) -> int:
        return max(1, len(self.seeds))

    def num_trials(self, wanted: int | None) -> int:
        """Return the number of trials: as wanted or the default, and at most one for each point of the space."""
        default = _MAX_POINTS if self.sampler == "grid" else _DEFAULT_TRIALS
        return min(wanted or default, len(self.points) or _UNLIMITED)

    def describe_fewer_trials(self, wanted: int | None) -> list[str]:
        """Return a line if the space has fewer points than trials are wanted, else nothing."""
        count, default = self.num_trials(wanted), None if self.sampler == "grid" else _DEFAULT_TRIALS
        if count == (wanted or default or count):
            return []
        asked = f"n_trials={wanted}" if wanted else f"the usual {default}"
        what = "the grid" if self.sampler == "grid" else "the space"
        return [f"{what} has {format_count(count, 'configuration')}: {format_count(count, 'trial')}, not {asked}"]

    @cached_property
    def points(self) -> Sequence[Point]:
        """All different points in random order, because a grid may be stopped early; none if they are too many."""
        axes = [dimension.grid() for dimension in self.space]
        if None in axes or _num_points(self.space) > _MAX_POINTS:
            return []
        names = [dimension.name for dimension in self.space]
        points = [dict(zip(names, values, strict=True)) for values in itertools.product(*filter(None, axes))]
        points = [{name: value for name, value in point.items() if name in self.active(point)} for point in points]
        points = [*{self.identity(point): point for point in reversed(points)}.values()][::-1]
        random.Random(derive(self.seed, "grid")).shuffle(points)
        return points

    def base_index(self, point: Point) -> int:
        """Return the index of the base config that a point changes."""
        return self.bases.index(tuple(str(point[one.name]) for one in self.space if one.group))

    def active(self, point: Point) -> list[str]:
        """Return the names of the dimensions that exist in the point's base config."""
        base = self.base_index(point)
        return [one.name for one in self.space if not one.only or base in one.only]

    def suggest(self, trial: Any) -> dict[str, float | str]:
        """Return the point that an Optuna trial suggests: config groups first, then what exists in their choices."""
        if not any(one.only for one in self.space):
            return {one.name: one.suggest(trial) for one in self.space}
        groups = {one.name: one.suggest(trial) for one in self.space if one.group}
        active = self.active(groups)
        return groups | {one.name: one.suggest(trial) for one in self.space if not one.group and one.name in active}

    def identity(self, point: Point) -> str:
        """Return a text that is the same for points with the same config."""
        values = {one.key: one.config_value(point[one.name]) for one in self.space if one.name in point}
        return json.dumps([self.base_index(point), values], sort_keys=True, default=str)

    def describe_search(self, num_trials: int) -> Iterator[str]:
        """Yield the lines of a dry run."""
        aims = ", ".join(f"{direction} {name}" for direction, name in zip(self.directions, self.metrics, strict=True))
        pruned = "" if self.pruner == "none" else f", pruned by {self.pruner}"
        yield f"{format_count(num_trials, 'trial')} by {self.sampler}{pruned}: {aims}; nothing was started"
        width = max(len(one.name) for one in self.space)
        yield from (f"{one.name:<{width}}  {one}{self._condition(one)}" for one in self.space)
        if self.seeds:
            seeds = ",".join(map(str, self.seeds))
            yield f"each trial {self.jobs_per_trial} times, with seed={seeds}: the mean is what counts"

    def _condition(self, dimension: Dimension) -> str:
        """Return with which choices of config groups a dimension exists; empty if with all."""
        groups = [one.name for one in self.space if one.group]
        combinations = [self.bases[index] for index in dimension.only]
        choices = (
            " ".join(f"{group}={choice}" for group, choice in zip(groups, combination, strict=True))
            for combination in combinations
        )
        return f", only with {' or '.join(choices)}" if dimension.only else ""

    def write(self, path: Path, bases_yaml: Sequence[str]) -> None:
        """Write `bases/` and `search.json` into a sweep's directory."""
        own_folder(path / "bases")
        for index, text in enumerate(bases_yaml):
            write_text(path / "bases" / f"{index}.yaml", seal(text))
        fsync_directory(path)
        write_json(path / "search.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the content of `search.json`, in which `fixed_overrides` are called `words`."""
        fields = asdict(self)
        fields["words"] = fields.pop("fixed_overrides")
        fields["space"] = [one.to_json() for one in self.space]
        return {"schema": 1, **fields}


def make_plan(
    sweeper: Mapping[str, Any],
    space: Sequence[Dimension],
    fixed_overrides: Sequence[str],
    monitor: str,
    tasks: Sequence[Specs] = (STANDARD,),
    seeds: Sequence[int] = (),
) -> SearchPlan:
    """Make the plan from the options of `hydra.sweeper`; `tasks` are what the searched tasks declare of their metrics.

    Raises:
        ConfigError: a line for each mistake.
    """
    sampler, pruner, seed = str(sweeper["sampler"]), str(sweeper["pruner"]), sweeper["seed"]
    metrics = _as_tuple(sweeper["metrics"]) or (monitor,)
    declared, problems = resolve_directions(metrics, _as_tuple(sweeper["directions"]), tasks)
    directions = _as_tuple(sweeper["directions"]) or tuple(declared)
    bases = tuple(itertools.product(*(one.choices for one in space if one.group)))
    plan = SearchPlan(
        sampler, pruner, seed, monitor, metrics, directions, tuple(space), tuple(fixed_overrides), bases, tuple(seeds)
    )
    problems += [*_problems(plan), *_n_trials_problems(sweeper["n_trials"])]
    problems = [f"hydra.sweeper.{line}" for line in problems]
    if not space:
        problems.append("nothing to search: give a key an interval, a range or choices, as optim.lr=interval(0.01,0.1)")
    if sampler == "grid":
        problems += [
            f"{one.name}: a grid needs single values, not an interval; use choice or range"
            for one in space
            if one.grid() is None
        ]
        if _num_points(space) > _MAX_POINTS:
            problems.append(f"the grid has {_num_points(space)} points; at most {_MAX_POINTS} can be tried")
    if problems:
        raise ConfigError(*problems)
    return plan


def read_plan(path: Path) -> SearchPlan:
    """Read the plan of an existing search from its sweep's directory.

    Raises:
        StorageError: `search.json` is damaged.
    """
    file = path / "search.json"
    try:
        saved = json.loads(read_text(file))
        plan = SearchPlan(
            sampler=str(saved["sampler"]),
            pruner=str(saved["pruner"]),
            seed=int(saved["seed"]),
            monitor=str(saved["monitor"]),
            metrics=_as_tuple(saved["metrics"]),
            directions=_as_tuple(saved["directions"]),
            space=tuple(map(Dimension.from_json, saved["space"])),
            fixed_overrides=_as_tuple(saved["words"]),
            bases=tuple(map(_as_tuple, saved["bases"])),
            seeds=tuple(map(int, saved.get("seeds", ()))),
        )
        problems = [*_problems(plan)]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        problems = [str(error)]
    if problems:
        raise StorageError(f"{file}: damaged: {truncate(problems[0])}; start a new search")
    return plan


def parse_n_trials(given: Any) -> int | None:
    """Return `n_trials` as a number, or None for the default. Raises ConfigError."""
    problems = [*_n_trials_problems(given)]
    if problems:
        raise ConfigError(*(f"hydra.sweeper.{line}" for line in problems))
    return None if given is None else int(given)


def _n_trials_problems(given: Any) -> Iterator[str]:
    text = str(given)
    if given is not None and not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        yield f"n_trials: must be a whole number at least 1, not {truncate(text)}"


def _problems(plan: SearchPlan) -> Iterator[str]:
    """Yield what is wrong with the sweeper's options, a line for each problem."""
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
        yield (
            f"pruner: {truncate(plan.pruner)} stops one run, and a trial is the mean of {plan.jobs_per_trial}; "
            f"leave one out"
        )
    if plan.sampler == "cmaes" and len(plan.metrics) > 1:
        yield f"sampler: cmaes seeks one metric, not {len(plan.metrics)}; use tpe"
    if plan.sampler == "cmaes" and all(one.type == "choice" for one in plan.space):
        yield "sampler: cmaes needs an interval or a range; for choices alone use tpe"


def _num_points(space: Sequence[Dimension]) -> int:
    """Return the number of points of a grid; an interval counts as one."""
    return math.prod(len(one.grid() or (0,)) for one in space)


def _as_tuple(given: Any) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(map(str, given))
