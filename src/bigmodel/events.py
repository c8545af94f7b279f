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


@dataclass(frozen=True, slots=True)
class Stepped:
    """One update is done; carries no metrics, so that it costs no synchronization with the device."""

    step: int


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
    """Metrics over a whole split; `best` if the monitored one has not been better."""

    step: int
    epoch: float
    split: str
    metrics: Mapping[str, Any]
    best: bool
    seconds: float
    specs: Mapping[str, MetricSpec] = field(default_factory=dict)


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
