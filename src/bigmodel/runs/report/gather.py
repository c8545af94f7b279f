"""Gather what a page shows of a run from its directory, which is not trusted: see `bigmodel.runs.records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigmodel.formatting import truncate
from bigmodel.metric_spec import MetricSpec
from bigmodel.redaction import is_secret_key, redact
from bigmodel.runs.comparison.seed_groups import format_value
from bigmodel.runs.records import RunRecord, iter_metric_events, number, read_run
from bigmodel.runs.run_files import read_json

_NOT_METRICS = ("step", "epoch", "split", "best", "seconds", "data_s", "step_s", "samples_per_s", "lr", "grad_norm")
_MAX_ROWS = 1000  # of a table
_MAX_METRICS = 12  # to be drawn
_MAX_NAME = 60  # letters of a run's name
_LARGEST = 1e30  # value that is drawn; a foreign file may hold any
_UNDECLARED = MetricSpec("none")


@dataclass(frozen=True)
class RunData:
    """A run's record, its raw `summary.json` and `environment.json`, and the events of `metrics.jsonl`."""

    record: RunRecord
    summary: Mapping[str, Any]
    environment: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """Last part of the directory's path, which tells runs of one page apart."""
        return truncate(self.record.path.resolve().name, _MAX_NAME)

    @property
    def subject(self) -> str:
        """The model and its dataset as text, such as `cnn on digits`."""
        model, dataset = (str(self.record.config.get(key, "a model")) for key in ("model", "dataset"))
        return truncate(f"{model} on {dataset}" if dataset != "a model" else model, 200)

    def spec(self, metric: str) -> MetricSpec:
        """Return how a metric without its split is written."""
        return self.record.specs.get(metric) or _UNDECLARED

    def metric_names(self) -> list[str]:
        """Return the names of the metrics in the events, the loss first."""
        names = dict.fromkeys(
            name for event in self.events for name, value in event.items() if number(value) is not None
        )
        kept = [name for name in names if name not in _NOT_METRICS and len(name) <= _MAX_NAME]
        return sorted(kept, key=lambda name: name != "loss")[:_MAX_METRICS]

    def curve(self, split: str, name: str, axis: str) -> tuple[list[float], list[float]]:
        """Return the positions on `axis` ("step" or "epoch") and the values of a metric on a split."""
        events = (event for event in self.events if event["split"] == split)
        pairs = [(number(event.get(axis)), number(event.get(name))) for event in events]
        complete = [(x, y) for x, y in pairs if x is not None and y is not None and max(abs(x), abs(y)) < _LARGEST]
        return [x for x, _ in complete], [y for _, y in complete]

    @property
    def axis(self) -> str:
        """The axis of the curves: epochs, or steps where there is not a whole epoch."""
        last = max((number(event.get("epoch")) or 0.0 for event in self.events), default=0.0)
        return "epoch" if last > 1 else "step"

    @property
    def best(self) -> tuple[float, float] | None:
        """Step and value of the best evaluation of the monitored metric."""
        best = self.summary.get("best")
        found = (number(best.get("step")), number(best.get("value"))) if isinstance(best, Mapping) else (None, None)
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    def table(self, split: str, name: str) -> Any:
        """Return a table of the summary, as `confusion` of `test`; None without one."""
        metrics = self.summary.get(split)
        return metrics.get(name) if isinstance(metrics, Mapping) else None

    def config_rows(self) -> list[tuple[str, str]]:
        """Keys and values of the config, secrets redacted."""
        return [(key, _config_text(key, value)) for key, value in sorted(self.record.config.items())[:_MAX_ROWS]]

    def environment_rows(self) -> list[tuple[str, str]]:
        """Return the names and values of the environment, secrets redacted."""
        return [(truncate(name), redact(text)) for name, text in _flatten("", self.environment, 3)[:_MAX_ROWS]]


def gather(path: Path, warnings: list[str], ended: bool = False) -> RunData:
    """Read a run; unreadable parts cost a line in `warnings`."""
    record = read_run(path, warnings, ended)
    return RunData(
        record=record,
        summary=read_json(path / "summary.json", []),  # `read_run` has said what is wrong with them
        environment=read_json(path / "environment.json", []),
        events=tuple(iter_metric_events(path)),
    )


def _config_text(key: str, value: Any) -> str:
    text = format_value(value)
    if is_secret_key(key) and value is not None and "${oc.env:" not in text:
        return "***"
    return redact(text)


def _flatten(prefix: str, node: Mapping[str, Any], depth: int) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and depth:
            rows += _flatten(f"{name}.", value, depth - 1)
        elif isinstance(value, list):
            rows.append((name, " ".join(map(str, value))))
        elif value is not None and value != "":
            rows.append((name, str(value)))
    return rows
