"""Objective of a search, known before its first trial: the metrics that its tasks declare, and their directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate
from bigmodel.config.signatures import locate
from bigmodel.errors import BigmodelError, ConfigError, DataError, suggest
from bigmodel.formatting import truncate
from bigmodel.metric_spec import OF_THE_RUN, MetricSpec, declared_specs, spec_for
from bigmodel.runs.comparison.measures import changes_the_measure
from bigmodel.sweeps.search.space import Dimension

Specs = Mapping[str, MetricSpec]
_RUN_METRICS = ("seconds", "samples_per_s", "step")  # that a search may optimize; they belong to no split
_OPTUNA_DIRECTIONS = {"min": "minimize", "max": "maximize"}


def task_specs(config: Config, is_local: bool) -> Specs:
    """Return what the config's task declares of its metrics.

    The task is built as in a run. Its class is used instead if the data is on another machine, or if user code fails,
    which the trial will report. Imports torch, and reads what the dataset reads when it is built.

    Raises:
        ConfigError: the task cannot be built, or a metric's direction is not declared.
        DataError: the data is missing or damaged.
    """
    tree, trust = config.values, config.trust
    try:
        dataset = instantiate("dataset", tree["dataset"], trust)
        from_data = {f"dataset.{key}": value for key, value in dataset.properties.items() if key in tree["dataset"]}
        loss = tree.get("loss")
        if isinstance(loss, Mapping) and loss.get("weight") == "balanced":  # needs the samples, which are not read
            from_data["loss.weight"] = None
        task = instantiate("task", config.with_values(from_data).values["task"], trust)
    except BigmodelError as error:
        if is_local or not isinstance(error, DataError):
            raise
        task = locate(tree["task"]["_target_"])
    except Exception:
        task = locate(tree["task"]["_target_"])
    try:
        return declared_specs(task)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"task: {error}") from error


def resolve_directions(
    metrics: Sequence[str], given: Sequence[str], tasks: Sequence[Specs]
) -> tuple[list[str], list[str]]:
    """Return `maximize` or `minimize` for each metric, as given or declared, and a line for each mistake."""
    directions, problems = [], list[str]()
    for index, metric in enumerate(metrics):
        declared, lines = _declared_directions(metric, tasks)
        problems += lines
        if len(given) == len(metrics):
            directions.append(given[index])
        elif len(declared) == 1 and declared[0] in _OPTUNA_DIRECTIONS:
            directions.append(_OPTUNA_DIRECTIONS[declared[0]])
        else:
            directions.append("minimize")  # a placeholder: a problem is returned with it
            if not lines and not given:
                who = "the searched tasks disagree" if len(declared) > 1 else "no task declares"
                problems.append(
                    f"directions: {who} whether low or high {truncate(metric)} is better; name them, as [minimize]"
                )
    return directions, problems


def warn_doubtful(
    metrics: Sequence[str], directions: Sequence[str], space: Sequence[Dimension], tasks: Sequence[Specs], limited: bool
) -> Iterator[str]:
    """Yield warnings about a direction against the task's, and about keys that change what a metric measures.

    `limited`: `limit_batches` ends evaluations early.
    """
    for metric, direction in zip(metrics, directions, strict=True):
        declared, _ = _declared_directions(metric, tasks)
        if [_OPTUNA_DIRECTIONS.get(one, direction) for one in declared] != [direction] * len(declared):
            yield f"directions: {direction} {metric}, for which its task declares the other direction"
        specs = [spec for known in tasks if (spec := spec_for(known, metric)) is not None]
        spec = specs[0] if specs else None
        for one in space:
            stops = "/" in metric and (one.key == "limit_batches" or (one.key == "batch_size" and limited))
            if changes_the_measure(one.key, metric, spec) or stops:
                why = ", because limit_batches ends evaluations early" if stops else ""
                yield f"{one.key}: its values change what {metric} measures{why}: trials will not be comparable"


def _declared_directions(metric: str, tasks: Sequence[Specs]) -> tuple[list[str], list[str]]:
    """Return the distinct directions that the tasks declare, and a line if there is no such metric."""
    split, sign, name = metric.partition("/")
    if split == "test":
        return [], [f"metrics: {truncate(metric)} is measured only at the end; search by val/{truncate(name)}"]
    if not sign:
        if metric in _RUN_METRICS:
            return [OF_THE_RUN[metric].direction], []
        known = sorted({f"val/{one}" for specs in tasks for one in specs} | {*_RUN_METRICS})
        return [], [f"metrics: there is no '{truncate(metric)}'; {_hint(metric, known)}"]
    if split == "train" and name in OF_THE_RUN:
        return [OF_THE_RUN[name].direction], []
    lacking = [specs for specs in tasks if name not in specs]
    if split not in ("val", "train") or len(lacking) == len(tasks):
        known = sorted({f"val/{one}" for specs in tasks for one in specs})
        return [], [f"metrics: there is no '{truncate(metric)}'; {suggest(metric, known)}"]
    if lacking:
        return [], [f"metrics: {truncate(metric)}: not all of the searched tasks declare it"]
    return list(dict.fromkeys(specs[name].direction for specs in tasks)), []


def _hint(metric: str, known: Sequence[str]) -> str:
    same = [name for name in known if name.rpartition("/")[2] == metric]
    return f"write {same[0]}, or one of {', '.join(_RUN_METRICS)}" if same else suggest(metric, known)
