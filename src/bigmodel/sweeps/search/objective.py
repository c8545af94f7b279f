"""What a search seeks, known before its first trial: the metrics that its tasks declare, and their directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bigmodel.config.config import Config
from bigmodel.config.instantiate import build
from bigmodel.config.signatures import locate
from bigmodel.errors import BigmodelError, ConfigError, DataError, nearest
from bigmodel.formatting import clip
from bigmodel.metric_spec import OF_THE_RUN, MetricSpec, declared
from bigmodel.runs.comparison.measures import decides
from bigmodel.sweeps.search.space import Parameter

Specs = Mapping[str, MetricSpec]
_SOUGHT = ("seconds", "samples_per_s", "step")  # metrics that belong to no split
_WAYS = {"min": "minimize", "max": "maximize"}


def specs_of(config: Config, here: bool) -> Specs:
    """What the config's task declares, built as in a run of this data; by its class where the data is not `here`, or
    where code of one's own fails, which the trial will tell. Imports torch and reads what the dataset reads at first.

    Raises:
        ConfigError: the task cannot be built, or declares nothing.
        DataError: the data is missing or damaged.
    """
    tree, trust = config.tree, config.trust
    try:
        dataset = build("dataset", tree["dataset"], trust)
        facts = {f"dataset.{key}": value for key, value in dataset.facts.items() if key in tree["dataset"]}
        loss = tree.get("loss")
        if (
            isinstance(loss, Mapping) and loss.get("weight") == "balanced"
        ):  # of the training samples, which are not read
            facts["loss.weight"] = None
        task = build("task", config.with_facts(facts).tree["task"], trust)
    except BigmodelError as error:
        if here or not isinstance(error, DataError):
            raise
        task = locate(tree["task"]["_target_"])
    except Exception:
        task = locate(tree["task"]["_target_"])
    try:
        return declared(task)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"task: {error}") from error


def directions(metrics: Sequence[str], given: Sequence[str], tasks: Sequence[Specs]) -> tuple[list[str], list[str]]:
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
                    f"directions: {told} whether low or high {clip(metric)} is better; name them, as [minimize]"
                )
    return found, problems


def doubts(
    metrics: Sequence[str], ways: Sequence[str], space: Sequence[Parameter], tasks: Sequence[Specs], limited: bool
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
            if decides(one.key, metric, spec) or stops:
                why = ", as limit_batches ends evaluations early" if stops else ""
                yield f"{one.key}: {metric} is not one measure for its values{why}: trials will be held against others"


def _declared_ways(metric: str, tasks: Sequence[Specs]) -> tuple[list[str], list[str]]:
    """The directions that the tasks declare, each once; a line if there is no such metric."""
    split, sign, name = metric.partition("/")
    if split == "test":
        return [], [f"metrics: {clip(metric)} is for the end; search by val/{clip(name)}"]
    if not sign:
        if metric in _SOUGHT:
            return [OF_THE_RUN[metric].direction], []
        known = sorted({f"val/{one}" for specs in tasks for one in specs} | {*_SOUGHT})
        return [], [f"metrics: there is no '{clip(metric)}'; {_hint(metric, known)}"]
    if split == "train" and name in OF_THE_RUN:
        return [OF_THE_RUN[name].direction], []
    lacking = [specs for specs in tasks if name not in specs]
    if split not in ("val", "train") or len(lacking) == len(tasks):
        known = sorted({f"val/{one}" for specs in tasks for one in specs})
        return [], [f"metrics: there is no '{clip(metric)}'; {nearest(metric, known)}"]
    if lacking:
        return [], [f"metrics: {clip(metric)}: not all of the tasks that are searched declare it"]
    return list(dict.fromkeys(specs[name].direction for specs in tasks)), []


def _hint(metric: str, known: Sequence[str]) -> str:
    same = [name for name in known if name.rpartition("/")[2] == metric]
    return f"write {same[0]}, or one of {', '.join(_SOUGHT)}" if same else nearest(metric, known)
