"""Gather what is known of a model that is to be given away: its run, other seeds of the same config, and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigmodel.errors import BigmodelError, ConfigError
from bigmodel.formatting import first_line
from bigmodel.inference.predictor import Predictor
from bigmodel.inference.run_data import open_dataset, open_loader
from bigmodel.interfaces import CountsClasses
from bigmodel.metric_spec import MetricSpec
from bigmodel.runs.comparison.seed_groups import differing_keys, group_by_config
from bigmodel.runs.comparison.significance import Summary, summarize, wilson_interval
from bigmodel.runs.records import RunRecord, number, read_run_or_sweep
from bigmodel.runs.report.confusion import Matrix, class_names, read_matrix
from bigmodel.runs.report.gather import RunData, gather
from bigmodel.runs.sharing.cost import Energy, count_flops, estimate_energy, trains_a_part

_OF_CLASSIFIERS = ("accuracy", "top5")  # shares of the samples, each right or wrong by itself
_OF_TEXTS = ("exact_match",)


@dataclass(frozen=True)
class Measure:
    """A metric of the model on a split: its value, a 95 % interval with what it is of, and the mean over seeds."""

    name: str
    value: float
    spec: MetricSpec
    interval: tuple[float, float] | None = None
    seeds: Summary | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a model.

    `samples` are those that `measures` were taken on, None where that is not known; `class_counts` are of the training
    samples, `flops` of an update.
    """

    run: RunData
    seeds: Sequence[RunRecord]
    split: str
    samples: int | None
    measures: Sequence[Measure]
    confusion: Matrix | None
    classes: Sequence[str]
    class_counts: Sequence[int] | None
    flops: float | None
    energy: Energy | None
    num_parameters: int
    is_partly_frozen: bool

    @property
    def record(self) -> RunRecord:
        return self.run.record

    @property
    def splits(self) -> Mapping[str, int]:
        """Number of samples by split."""
        return {name: int(size) for name, size in self.record.sizes.items()}

    @property
    def seconds(self) -> float | None:
        return self.record.metrics.get("seconds")


def read_seeds(paths: Sequence[str]) -> list[RunRecord]:
    """Read runs that differ in their seed alone, or a sweep of such.

    Raises:
        ConfigError: there is no such run, a run has not ended, or they differ in more.
    """
    warnings: list[str] = []
    records = [record for path in paths for record in read_run_or_sweep(Path(path), warnings)]
    for record in records:
        if record.state == "running":
            raise ConfigError(f"run: '{record.path}' is still being trained; wait for it, or stop it")
    if len(group_by_config(records)) > 1:
        keys = [key for key in differing_keys([record.config for record in records]) if key != "seed"]
        raise ConfigError(f"run: runs that differ in {', '.join(keys[:4])} are not one model; give runs of one config")
    return records


def gather_facts(
    records: Sequence[RunRecord], predictor: Predictor, data_dir: str | None, watts: str, notes: list[str]
) -> Facts:
    """Gather the facts of the first run, with the others as its seeds; what cannot be known costs a line in `notes`."""
    run = gather(records[0].path, [])
    split = next((name for name in ("test", "val") if isinstance(run.summary.get(name), Mapping)), "")
    matrix = read_matrix(run.table(split, "confusion")) if split else None
    samples = _evaluated(run, split, matrix)
    count, flops = None, None
    try:
        dataset = open_dataset(predictor, data_dir)
        flops = count_flops(predictor, dataset)
        loader = open_loader(predictor, dataset, 1)
        found = loader.class_counts() if isinstance(loader, CountsClasses) else None
        count = None if found is None else [int(n) for n in found]
    except BigmodelError as error:
        notes.append(f"left out: FLOP and class counts, for which the run's data is needed ({first_line(error)})")
    device = run.environment.get("device")
    node = predictor.config.get("device")
    devices = node.get("count") if isinstance(node, Mapping) else 1
    seconds = run.record.metrics.get("seconds")
    energy = None
    if seconds is not None and isinstance(device, str) and isinstance(devices, int):
        energy = estimate_energy(seconds, device, max(1, devices), watts)
    return Facts(
        run=run,
        seeds=records,
        split=split,
        samples=samples,
        measures=_measures(run, records, split, matrix is not None, samples),
        confusion=matrix,
        classes=class_names(predictor.classes, len(matrix)) if matrix else predictor.classes or [],
        class_counts=count,
        flops=flops,
        energy=energy,
        num_parameters=sum(parameter.numel() for parameter in predictor.model.parameters()),
        is_partly_frozen=trains_a_part(predictor.config),
    )


def _evaluated(run: RunData, split: str, matrix: Matrix | None) -> int | None:
    """Return how many samples of the split were looked at, which `limit_batches` may have cut."""
    if matrix is not None:
        return sum(map(sum, matrix))
    size = run.record.sizes.get(split)
    return None if size is None or run.record.config.get("limit_batches") is not None else int(size)


def _measures(
    run: RunData, seeds: Sequence[RunRecord], split: str, has_classes: bool, samples: int | None
) -> list[Measure]:
    metrics: Any = run.summary.get(split, {})
    found = []
    for name, value in metrics.items():
        exact = number(value)
        if exact is None:
            continue
        by_sample = name in (_OF_CLASSIFIERS if has_classes else _OF_TEXTS)
        interval = wilson_interval(exact, samples) if by_sample and samples and 0 <= exact <= 1 else None
        over = [one.metrics.get(f"{split}/{name}") for one in seeds]
        known = [one for one in over if one is not None]
        found.append(
            Measure(
                str(name),
                exact,
                run.spec(str(name)),
                interval,
                summarize(known) if len(known) > 1 else None,
            )
        )
    return found
