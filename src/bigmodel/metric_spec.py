"""Direction, unit and format of each metric. Imports no torch.

A task declares its metrics as `metric_specs`; a run writes them into `summary.json`; whatever ranks, searches, compares
or prints a metric reads them there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

_FORMAT = re.compile(r"\.\d{1,2}[%gfe]")
_LONGEST = 100  # letters of a name or a unit that is read from a file


@dataclass(frozen=True)
class MetricSpec:
    """The better direction, "min" or "max" ("none": neither), the unit, and a format as `.4g` or, of shares, `.2%`.

    Raises:
        ValueError: a direction or a format of another kind.
    """

    direction: Literal["min", "max", "none"]
    unit: str = ""
    format: str = ".4g"

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max", "none"):
            raise ValueError(f"a metric's direction is min, max or none, not {self.direction!r}")
        if not isinstance(self.format, str) or not _FORMAT.fullmatch(self.format):
            raise ValueError(f"a metric's format is as .4g, .3f or .2%, not {self.format!r}")

    @property
    def is_share(self) -> bool:
        """Whether values are written as percentages."""
        return self.format.endswith("%")

    def text(self, value: float) -> str:
        """Format a value, without its unit."""
        return format(value, self.format)


_NATS, _NUMBER, _PERCENT = MetricSpec("min", "nats"), MetricSpec("max"), MetricSpec("max", format=".2%")
_ERROR, _WRONG = MetricSpec("min"), MetricSpec("min", format=".2%")
STANDARD: Mapping[str, MetricSpec] = {  # of the built-in tasks; also how runs are read that do not declare theirs
    **{"loss": _NATS, "accuracy": _PERCENT, "top5": _PERCENT, "auc": _NUMBER},
    **{"perplexity": _ERROR, "bits_per_byte": MetricSpec("min", "bits/byte")},
    **{"character_error": _WRONG, "word_error": _WRONG, "beam_word_error": _WRONG},
    **{"token_accuracy": MetricSpec("max", "of tokens", ".2%"), "exact_match": _PERCENT, "chrf": _NUMBER},
    **{"mse": _ERROR, "mae": _ERROR, "r2": _NUMBER},
    **{"rmse_units": MetricSpec("min", "units of the target"), "mae_units": MetricSpec("min", "units of the target")},
    **dict.fromkeys(("naive_mse", "naive_mae", "seasonal_mse", "seasonal_mae"), _ERROR),
}
OF_THE_RUN: Mapping[str, MetricSpec] = {  # what the training loop measures, whatever the task
    **{"seconds": MetricSpec("min", "s"), "data_s": MetricSpec("min", "s"), "step_s": MetricSpec("min", "s")},
    **{"samples_per_s": MetricSpec("max", "samples/s"), "lr": MetricSpec("none"), "grad_norm": MetricSpec("none")},
    **{"step": MetricSpec("none", "steps"), "steps": MetricSpec("none", "steps")},
}


def spec_for(specs: Mapping[str, MetricSpec], metric: str) -> MetricSpec | None:
    """Return the declaration of a metric with or without its split, such as `val/accuracy`; None without one."""
    return specs.get(metric.rpartition("/")[2])


def on_test_split(monitor: str) -> str:
    """Return the monitored metric on the test split: `test/accuracy` for `val/accuracy`."""
    return f"test/{monitor.rpartition('/')[2]}"


def standard_specs(*names: str) -> dict[str, MetricSpec]:
    """Return the standard declarations of these metrics."""
    return {name: STANDARD[name] for name in names}


def omit(specs: Mapping[str, MetricSpec], names: Collection[str]) -> dict[str, MetricSpec]:
    """Return the declarations except of metrics that a task, as it is configured, does not compute."""
    return {name: spec for name, spec in specs.items() if name not in names}


def declared_specs(task: Any) -> dict[str, MetricSpec]:
    """Return what a task, or its class, declares by `metric_specs`.

    Raises:
        ValueError: one of its `metric_names` has no declaration.
    """
    specs: dict[str, MetricSpec] = dict(getattr(task, "metric_specs", None) or {})
    silent = [name for name in getattr(task, "metric_names", ()) if name not in specs]
    if silent:
        kind = task if isinstance(task, type) else type(task)
        raise ValueError(f"{kind.__name__}: metric_specs lacks {', '.join(silent)}; declare min or max for each")
    return specs


def to_json(specs: Mapping[str, MetricSpec]) -> dict[str, Any]:
    """Return the declarations as JSON for `summary.json`."""
    return {name: asdict(spec) for name, spec in specs.items()}


def from_summary(summary: Mapping[str, Any]) -> Mapping[str, MetricSpec]:
    """Return the declarations of a run: those of `metrics` in its `summary.json`; of an older run, the standard ones.

    Unreadable entries are left out.
    """
    given = summary.get("metrics")
    if given is None:
        return STANDARD
    return dict(filter(None, map(_read, given.items()))) if isinstance(given, Mapping) else {}


def _read(entry: tuple[Any, Any]) -> tuple[str, MetricSpec] | None:
    name, fields = entry
    try:
        spec = MetricSpec(fields["direction"], str(fields.get("unit", ""))[:_LONGEST], fields.get("format", ".4g"))
    except (AttributeError, LookupError, TypeError, ValueError):
        return None
    return (str(name), spec) if len(str(name)) <= _LONGEST and spec.unit.isprintable() else None
