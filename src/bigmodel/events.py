"""Events of a run, frozen. The loop emits them; listeners write, show or forward them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bigmodel.metric_spec import MetricSpec


@dataclass(frozen=True)
class Started:
    """Training begins at `step` (0, or where a resumed run stood)."""

    step: int
    steps: int
    steps_per_epoch: int
    directory: str
    device: str
    monitor: str = ""  # the metric that decides what is best, as `val/accuracy`


@dataclass(frozen=True, slots=True)
class Stepped:
    """One update over `samples` is done. Costs no synchronization with the device: `loss` is that of the newest update
    that the host knows of, on a GPU up to four steps old, and None before there is one.
    """

    step: int
    samples: int = 0
    loss: float | None = None


@dataclass(frozen=True)
class Phase:
    """Text about a slow activity before the next event: the first step, or `evaluating val`."""

    text: str


@dataclass(frozen=True)
class TrainLogged:
    """Means over the samples since the last such event. Times are seconds of the host, summed over those steps.

    `specs` say how the metrics are written, here and in `Evaluated`.
    """

    step: int
    epoch: float
    metrics: Mapping[str, float]
    lr: float
    grad_norm: float
    samples_per_s: float
    data_s: float
    step_s: float
    specs: Mapping[str, MetricSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """Metrics over a whole split; `best` if the monitored one has not been better. `lr` is that of the last update."""

    step: int
    epoch: float
    split: str
    metrics: Mapping[str, Any]
    best: bool
    seconds: float
    specs: Mapping[str, MetricSpec] = field(default_factory=dict)
    lr: float | None = None


@dataclass(frozen=True)
class Saved:
    """A checkpoint has been committed."""

    step: int
    path: str
    seconds: float


@dataclass(frozen=True)
class Warned:
    """Message for users, one line."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The run is over. `summary` is what `summary.json` holds."""

    summary: Mapping[str, Any]
