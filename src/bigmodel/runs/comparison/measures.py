"""What runs declare of one metric, and whether it measures the same in all of them. Numbers are compared elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison.seed_groups import SeedGroup, differing_keys, shown
from bigmodel.runs.records import RunRecord

UNKNOWN = "-"
DATA = "environment.dataset"
FINGERPRINT = "data (fingerprint)"  # how an obstacle of that name is told
_EVALUATED = (  # keys of a dataset that decide which samples are evaluated, or what is asked about them
    *("test_fraction", "split", "split_column", "time", "horizon", "num_classes", "predicts", "labels"),
    *("target", "targets", "target_column", "target_is", "label_column"),
)
_IN_TOKENS = ("tokenizer", "vocab_size", "vocabulary", "min_count")  # the same for metrics that count tokens
_CUT = ("context", "window", *_IN_TOKENS)  # keys by which the same data becomes more or fewer samples
_SAME_MEASURE = ("loss", "beam")  # a task's keys that leave its metrics what they are; for the loss, see `decides`


def common_spec(runs: Iterable[RunRecord], metric: str) -> MetricSpec | None:
    """What the runs declare of the metric; None where no run does.

    Raises:
        ValueError: low values are better in some runs and high ones in others.
    """
    known = [(run, spec) for run in runs if (spec := run.spec(metric)) is not None]
    having = [(run, spec) for run, spec in known if metric in run.metrics] or known
    ways = {spec.direction: run.path for run, spec in reversed(having)}
    if len(ways) > 1:
        places = ", ".join(f"{way} in {path}" for way, path in sorted(ways.items()))
        raise ValueError(f"{metric}: the runs declare different directions: {places}")
    return having[0][1] if having else None


def changes_the_measure(key: str, metric: str, spec: MetricSpec | None = None) -> bool:
    """Whether another value of this key makes the metric another measure: other data, another task, another loss."""
    split, _, name = metric.partition("/")
    group, _, rest = key.partition(".")
    leaf = rest.partition(".")[0]
    if group == "dataset":
        tokens = spec is not None and "token" in spec.unit and leaf in _IN_TOKENS
        return not leaf or leaf in _EVALUATED or (leaf == "val_fraction" and split != "test") or tokens
    if group == "task" and leaf not in _SAME_MEASURE:
        return True
    if name == "loss":
        return group == "loss" or leaf == "loss"
    return key == "monitor" and metric == "best"


def differing_facts(points: Sequence[SeedGroup], metric: str) -> dict[str, list[str]]:
    """What keeps the metric from being one measure: facts that are not the same for all points, with each one's value.

    Where a point does not know a fact, as older runs do not know how many samples were evaluated, and the others agree,
    it is none.
    """
    runs = [run for point in points for run in point.runs]
    monitors = {run.monitor for run in runs}
    real = monitors.pop() if metric == "best" and len(monitors) == 1 else metric
    specs = [spec for run in runs if (spec := run.spec(real)) is not None]
    keys = differing_keys([point.config for point in points])
    found: dict[str, list[str]] = {}
    data = _column(points, lambda run: run.environment.get(DATA))
    if data:
        found[FINGERPRINT] = data
    for key in keys:
        values = [shown(point.config.get(key)) for point in points]  # an older version's config may lack a null
        if len(set(values)) > 1 and (
            changes_the_measure(key, real, specs[0] if specs else None) or _stops_early(key, points)
        ):
            found[key] = values
    split = real.partition("/")[0] if "/" in real else ""
    samples = _column(points, lambda run: _whole(run.sizes.get(split)))
    if samples and not found and not any(key == f"dataset.{cut}" for key in keys for cut in _CUT):
        found[f"samples in {split}"] = samples
    return found


def comparable_groups(points: Sequence[SeedGroup], metric: str) -> tuple[list[str], list[list[SeedGroup]]]:
    """The names of the obstacles, and the points in groups without any, in the order of their first ones."""
    found = differing_facts(points, metric)
    groups: dict[tuple[str, ...], list[SeedGroup]] = {}
    for number, point in enumerate(points):
        groups.setdefault(tuple(values[number] for values in found.values()), []).append(point)
    return [*found], [*groups.values()]


def _stops_early(key: str, points: Sequence[SeedGroup]) -> bool:
    """Whether the key says after how many samples evaluations stop."""
    limited = any(point.config.get("limit_batches") is not None for point in points)
    return key == "limit_batches" or (key == "batch_size" and limited)


def _column(points: Sequence[SeedGroup], fact: Callable[[RunRecord], str | None]) -> list[str]:
    """What each point's runs know of a fact; nothing where all that is known is the same."""
    each = [dict.fromkeys(value for run in point.runs if (value := fact(run)) is not None) for point in points]
    if len({value for values in each for value in values}) < 2:
        return []
    return [" and ".join(values) or UNKNOWN for values in each]


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"
