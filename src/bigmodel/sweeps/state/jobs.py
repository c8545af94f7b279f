"""Jobs of a sweep: the fixed description of one, and how far it has got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigmodel.errors import ConfigError, DivergedError
from bigmodel.sweeps.engines.options import rank_count

PERMANENT_FAILURES = (ConfigError.exit_code, DivergedError.exit_code)  # a second attempt would fail the same way


@dataclass(frozen=True)
class JobSpec:
    """A job as it is known before it starts; the fields are keys of `sweep.json`.

    `monitor` is the metric that decides which checkpoint is best; `device` is the requested device type, on `ranks` of
    which it runs.
    """

    number: int
    overrides: tuple[str, ...]
    monitor: str
    epochs: float
    device: str = "auto"
    ranks: int = 1


def job_spec(number: int, overrides: Sequence[str], config: Mapping[str, Any]) -> JobSpec:
    """Describe the job with these overrides and this config."""
    device = config["device"]
    given = (str(config["monitor"]), float(config["epochs"]), device_type(config), rank_count(device))
    return JobSpec(number, tuple(overrides), *given)


def device_type(config: Mapping[str, Any]) -> str:
    """Return the device type that a config asks for, such as `auto`, `cpu` or `cuda`."""
    return str(config["device"].get("kind", "cpu"))


@dataclass
class JobProgress:
    """How far a job has got.

    `status` is queued, running, done, failed, interrupted or pruned; `code` the last exit code, negative for a signal;
    `progress` a fraction of the whole run; `value` the best monitored metric, or the latest while the job runs.
    """

    status: str = "queued"
    code: int | None = None
    step: int = 0
    progress: float = 0.0
    value: float | None = None
    seconds: float = 0.0
