"""Check whether a metric measures the same thing in all runs, and find its common declaration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison.seed_groups import SeedGroup, differing_keys, format_value
from bigmodel.runs.records import RunRecord

UNKNOWN = "-"
DATA = "environment.dataset"
FINGERPRINT = "data (fingerprint)"  # name under which a difference in DATA is shown
_EVALUATION_KEYS = (  # dataset keys that decide which samples are evaluated, or what is predicted
    *("test_fraction", "split", "split_column", "time", "horizon", "num_classes", "predicts", "labels"),
    *("target", "targets", "target_column", "target_type", "label_column"),
)
_TOKEN_KEYS = ("tokenizer", "vocab_size", "vocabulary", "min_count")  # dataset keys that change what a token is
_SAMPLE_KEYS = ("context", "window", *_TOKEN_KEYS)  # dataset keys that split the same data into other samples
_SAME_MEASURE = ("loss", "beam")  # task keys that do not change what metrics measure, except the loss itself


def common_spec(runs: Iterable[RunRecord], metric: str) -> MetricSpec | None:
    """Return the runs' declaration of the metric, or None if no run has one.

    Raises:
        ValueError: low values are better in some runs and high ones in others.
    """
    declared = [(run, spec) for run in runs if (spec := run.spec(metric)) is not None]
    declared = [(run, spec) for run, spec in declared if metric in run.metrics] or declared
    directions = {spec.direction: run.path for run, spec in reversed(declared)}
    if len(directions) > 1:
        listed = ", ".join(f"{direction} in {path}" for direction, path in sorted(directions.items()))
        raise ValueError(f"{metric}: the runs declare different directions: {listed}")
    return declared[0][1] if declared else None


def changes_the_measure(key: str, metric: str, spec: MetricSpec | None = None) -> bool:
    """Return whether another value of this key changes what the metric measures: other data, task or loss."""
    split, _, name = metric.partition("/")
    group, _, rest = key.partition(".")
    leaf = rest.partition(".")[0]
    if group == "dataset":
        tokens = spec is not None and "token" in spec.unit and leaf in _TOKEN_KEYS
        return not leaf or leaf in _EVALUATION_KEYS or (leaf == "val_fraction" and split != "test") or tokens
    if group == "task" and leaf not in _SAME_MEASURE:
        return True
    if name == "loss":
        return group == "loss" or leaf == "loss"
    return key == "monitor" and metric == "best"


def reasons_not_comparable(groups: Sequence[SeedGroup], metric: str) -> dict[str, list[str]]:
    """Return the reasons why the metric is not comparable: names with each group's value.

    A value that a group does not have, such as the number of evaluated samples of an older run, is no reason if the
    other groups agree.
    """
    runs = [run for group in groups for run in group.runs]
    monitors = {run.monitor for run in runs}
    real = monitors.pop() if metric == "best" and len(monitors) == 1 else metric
    specs = [spec for run in runs if (spec := run.spec(real)) is not None]
    keys = differing_keys([group.config for group in groups])
    found: dict[str, list[str]] = {}
    data = _values_if_different(groups, lambda run: run.environment.get(DATA))
    if data:
        found[FINGERPRINT] = data
    for key in keys:
        values = [format_value(group.config.get(key)) for group in groups]  # an old config may lack a key that is null
        if len(set(values)) > 1 and (
            changes_the_measure(key, real, specs[0] if specs else None) or _stops_early(key, groups)
        ):
            found[key] = values
    split = real.partition("/")[0] if "/" in real else ""
    samples = _values_if_different(groups, lambda run: _format_count(run.sizes.get(split)))
    if samples and not found and not any(key == f"dataset.{name}" for key in keys for name in _SAMPLE_KEYS):
        found[f"samples in {split}"] = samples
    return found


def comparable_groups(groups: Sequence[SeedGroup], metric: str) -> tuple[list[str], list[list[SeedGroup]]]:
    """Return the names of the reasons against a comparison, and lists of groups that are comparable."""
    reasons = reasons_not_comparable(groups, metric)
    comparable: dict[tuple[str, ...], list[SeedGroup]] = {}
    for index, group in enumerate(groups):
        comparable.setdefault(tuple(values[index] for values in reasons.values()), []).append(group)
    return [*reasons], [*comparable.values()]


def _stops_early(key: str, groups: Sequence[SeedGroup]) -> bool:
    """Return whether the key limits how many samples are evaluated."""
    is_limited = any(group.config.get("limit_batches") is not None for group in groups)
    return key == "limit_batches" or (key == "batch_size" and is_limited)


def _values_if_different(groups: Sequence[SeedGroup], value_of: Callable[[RunRecord], str | None]) -> list[str]:
    """Return each group's values as text; nothing if all known values are the same."""
    each = [dict.fromkeys(value for run in group.runs if (value := value_of(run)) is not None) for group in groups]
    if len({value for values in each for value in values}) < 2:
        return []
    return [" and ".join(values) or UNKNOWN for values in each]


def _format_count(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"
