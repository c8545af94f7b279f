"""What a search seeks, known before its first trial: the metrics that its tasks declare, and their directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate
from bigmodel.config.signatures import locate
from bigmodel.errors import BigmodelError, ConfigError, DataError, suggest
from bigmodel.formatting import truncate
from bigmodel.metric_spec import OF_THE_RUN, MetricSpec, declared_specs
from bigmodel.runs.comparison.measures import changes_the_measure
from bigmodel.sweeps.search.space import Dimension

Specs = Mapping[str, MetricSpec]
_SOUGHT = ("seconds", "samples_per_s", "step")  # metrics that belong to no split
_WAYS = {"min": "minimize", "max": "maximize"}


def task_specs(config: Config, here: bool) -> Specs:
    """What the config's task declares, built as in a run of this data; by its class where the data is not `here`, or
    where code of one's own fails, which the trial will tell. Imports torch and reads what the dataset reads at first.

    Raises:
        ConfigError: the task cannot be built, or declares nothing.
        DataError: the data is missing or damaged.
    """
    tree, trust = config.values, config.trust
    try:
        dataset = instantiate("dataset", tree["dataset"], trust)
        facts = {f"dataset.{key}": value for key, value in dataset.properties.items() if key in tree["dataset"]}
        loss = tree.get("loss")
        if (
            isinstance(loss, Mapping) and loss.get("weight") == "balanced"
        ):  # of the training samples, which are not read
            facts["loss.weight"] = None
        task = instantiate("task", config.with_values(facts).values["task"], trust)
    except BigmodelError as error:
        if here or not isinstance(error, DataError):
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
    """For each metric maximize or minimize, as given or as all `tasks` declare; and a line for each mistake."""
    found, problems = [], list[str]()
    for number, metric in enumerate(metrics):
        ways, lines = _declared_ways(metric, tasks)
        problems += lines
        if len(given) == len(metrics):
            found.append(given[number])
        elif len(ways) == 1 and ways[0] in _WAYS:
            found.append(_WAYS[ways[0]])
        else:
            found.append("minimize")
            if not lines and not given:
                told = "the tasks that are searched declare both" if len(ways) > 1 else "nobody declares"
                problems.append(
                    f"directions: {told} whether low or high {truncate(metric)} is better; name them, as [minimize]"
                )
    return found, problems


def warn_doubtful(
    metrics: Sequence[str], ways: Sequence[str], space: Sequence[Dimension], tasks: Sequence[Specs], limited: bool
) -> Iterator[str]:
    """Lines on what is asked for and hardly meant: a direction against the task's, a metric that is not one measure."""
    for metric, way in zip(metrics, ways, strict=True):
        declared_ways, _ = _declared_ways(metric, tasks)
        if [_WAYS.get(one, way) for one in declared_ways] != [way] * len(declared_ways):
            yield f"directions: {way} {metric}, for which its task declares the other direction"
        specs = [spec for known in tasks if (spec := known.get(metric.rpartition("/")[2])) is not None]
        spec = specs[0] if specs else None
        for one in space:
            stops = "/" in metric and (one.key == "limit_batches" or (one.key == "batch_size" and limited))
            if changes_the_measure(one.key, metric, spec) or stops:
                why = ", as limit_batches ends evaluations early" if stops else ""
                yield f"{one.key}: {metric} is not one measure for its values{why}: trials will be held against others"


def _declared_ways(metric: str, tasks: Sequence[Specs]) -> tuple[list[str], list[str]]:
    """The directions that the tasks declare, each once; a line if there is no such metric."""
    split, sign, name = metric.partition("/")
    if split == "test":
        return [], [f"metrics: {truncate(metric)} is for the end; search by val/{truncate(name)}"]
    if not sign:
        if metric in _SOUGHT:
            return [OF_THE_RUN[metric].direction], []
        known = sorted({f"val/{one}" for specs in tasks for one in specs} | {*_SOUGHT})
        return [], [f"metrics: there is no '{truncate(metric)}'; {_hint(metric, known)}"]
    if split == "train" and name in OF_THE_RUN:
        return [OF_THE_RUN[name].direction], []
    lacking = [specs for specs in tasks if name not in specs]
    if split not in ("val", "train") or len(lacking) == len(tasks):
        known = sorted({f"val/{one}" for specs in tasks for one in specs})
        return [], [f"metrics: there is no '{truncate(metric)}'; {suggest(metric, known)}"]
    if lacking:
        return [], [f"metrics: {truncate(metric)}: not all of the tasks that are searched declare it"]
    return list(dict.fromkeys(specs[name].direction for specs in tasks)), []


def _hint(metric: str, known: Sequence[str]) -> str:
    same = [name for name in known if name.rpartition("/")[2] == metric]
    return f"write {same[0]}, or one of {', '.join(_SOUGHT)}" if same else suggest(metric, known)
