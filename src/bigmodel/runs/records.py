"""Read run directories into plain records. Nothing in them is executed; damaged or hostile files cost a warning."""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bigmodel.errors import ConfigError
from bigmodel.formatting import first_line, truncate
from bigmodel.metric_spec import OF_THE_RUN, STANDARD, MetricSpec, from_summary
from bigmodel.runs.run_files import read_config, read_json
from bigmodel.runs.tolerant_json import parse_jsonl
from bigmodel.safe_files import LARGEST_LINES, is_there, open_regular

FINISHED = ("done", "early_stopped")
STATES = (*FINISHED, "failed", "interrupted", "running", "pruned")
_LONGEST_LINE = 1 << 16
_OF_THE_RUN = ("step", "steps", "seconds", "samples_per_s")  # keys of a summary
_NOT_METRICS = ("step", "epoch", "best", "seconds", "data_s", "step_s")  # keys of an event


@dataclass(frozen=True)
class RunRecord:
    """A run as read from its directory.

    `started` is in seconds since 1970; `config` and `metrics` have flat, dotted keys. `metrics` holds finite numbers,
    as far as the run has got: of each split as `test/accuracy`, and `best` (of `monitor`), `step`, `steps`, `seconds`,
    `samples_per_s`. `specs` are what the run's task declares, by metric names without a split; the standard ones if the
    run is too old to have any. `sizes` are the numbers of samples by split.
    """

    path: Path
    state: str
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    monitor: str
    started: float
    environment: Mapping[str, str]
    specs: Mapping[str, MetricSpec] = field(default_factory=lambda: STANDARD)
    sizes: Mapping[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    def spec(self, metric: str) -> MetricSpec | None:
        """Return the declaration of a metric such as `test/accuracy`, `seconds` or `best`, or None."""
        split, sign, name = (self.monitor if metric == "best" else metric).partition("/")
        return (self.specs.get(name) if sign else None) or OF_THE_RUN.get(name if sign else split)


def read_run_or_sweep(path: Path, warnings: list[str]) -> list[RunRecord]:
    """Read a run, or the runs of a sweep in the order of their numbers.

    Raises:
        ConfigError: there is neither a run nor a sweep at `path`.
    """
    try:
        found = is_run(path)
    except OSError as error:
        raise ConfigError(f"'{path}': cannot be read: {error.strerror or error}") from error
    if found:
        return [read_run(path, warnings)]
    jobs = sweep_runs(path, warnings)
    if not jobs:
        raise ConfigError(f"'{path}': there is no run or sweep; bigmodel-runs lists what there is")
    return [read_run(job, warnings) for job in jobs]


def sweep_runs(sweep: Path, warnings: list[str] | None = None) -> list[Path]:
    """Return the run directories of a sweep in the order of their numbers; none if `sweep` is not a sweep."""
    warnings = [] if warnings is None else warnings
    jobs = [path for path in _directories(sweep, warnings) if path.name.isdecimal() and is_run(path, warnings)]
    return sorted(jobs, key=lambda path: int(path.name))


def find_runs(output_dir: Path, warnings: list[str]) -> list[RunRecord]:
    """Read all runs below `output_dir`, including those of sweeps."""
    folders = _directories(output_dir, warnings)  # also NAME-USER, where several users share `output_dir`
    sweep_folders = [folder for folder in folders if folder.name.partition("-")[0] == "sweeps"]
    days = [folder for folder in folders if folder not in sweep_folders]
    paths = [path for day in days for path in _directories(day, warnings) if is_run(path, warnings)]
    sweeps = [sweep for folder in sweep_folders for sweep in _directories(folder, warnings)]
    paths += [job for sweep in sweeps for job in sweep_runs(sweep, warnings)]
    return [read_run(path, warnings) for path in paths]


def read_run(path: Path, warnings: list[str], ended: bool = False) -> RunRecord:
    """Read one run directory; what cannot be read is left out, with a line in `warnings`.

    A locked run is running, unless it has `ended` in this process. Unexpected errors become a warning too, so that one
    run never prevents others from being read.
    """
    try:
        return _read(path, warnings, ended)
    except Exception as error:
        warnings.append(f"{path}: cannot be read: {type(error).__name__}: {first_line(error)}")
        return RunRecord(path, "interrupted", {}, {}, "", 0.0, {})


def _read(path: Path, warnings: list[str], ended: bool) -> RunRecord:
    summary = read_json(path / "summary.json", warnings)
    environment = read_json(path / "environment.json", warnings)
    config = read_config(path / "config.yaml", warnings)
    monitor = truncate(_text_of(summary.get("monitor", config.get("monitor", ""))))
    state = truncate(_text_of(summary.get("state", "interrupted")), 40)  # a run that died has no summary
    if not ended and is_locked(path):
        state = "running"
    elif state not in STATES:
        warnings.append(f"{path / 'summary.json'}: '{state}' is not a state")
        state = "interrupted"
    for key in _OF_THE_RUN:
        if (value := summary.get(key)) is not None and number(value) is None:
            warnings.append(f"{path / 'summary.json'}: {key}: {truncate(repr(value), 40)} is not a number")
    has_ended = state != "running" and bool(summary)
    return RunRecord(
        path=path,
        state=state,
        config=config,
        metrics=dict(_metrics_of_summary(summary) if has_ended else _metrics_of_events(path, monitor)),
        monitor=monitor,
        started=_start_time(path, environment),
        environment=_comparable_environment(environment),
        specs=from_summary(summary),
        sizes=dict(_numbers("", summary.get("splits"))),
    )


def is_locked(path: Path) -> bool:
    """Return whether a process is writing this run. Takes a shared lock for a moment."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def iter_metric_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of `metrics.jsonl` that can be read, in order."""
    with suppress(OSError), open_regular(path / "metrics.jsonl", LARGEST_LINES) as file:
        lines = iter(lambda: file.readline(_LONGEST_LINE), b"")  # a longer one comes in parts, which are no JSON
        yield from (event for event in parse_jsonl(lines) if isinstance(event.get("split"), str))


def number(value: Any) -> float | None:
    """Return a finite number as a float, and anything else as None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    with suppress(OverflowError):
        return float(value) if math.isfinite(value) else None
    return None


def is_run(path: Path, warnings: list[str] | None = None) -> bool:
    """Return whether a directory is a run. Without `warnings`, raise OSError, as for another user's directory."""
    files = ("config.yaml", "summary.json", ".lock")
    try:
        return any(is_there(path / name) for name in files) and not (path / "sweep.json").is_file()
    except OSError as error:
        if warnings is None:
            raise
        warnings.append(f"{path}: cannot be read: {error.strerror or error}")
        return False


def _directories(path: Path, warnings: list[str]) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return sorted(path / entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        warnings.append(f"{path}: cannot be read: {error.strerror or error}")
        return []


def _metrics_of_events(path: Path, monitor: str) -> Iterator[tuple[str, float]]:
    """Yield the metrics of a run without a summary; later events override earlier ones."""
    split, _, name = monitor.partition("/")
    for event in iter_metric_events(path):
        yield from _numbers(event["split"], {key: event[key] for key in event if key not in _NOT_METRICS})
        yield from _numbers("", {"step": event.get("step")})
        if event["split"] == split and event.get("best") is True and name:
            yield from _numbers("", {"best": event.get(name)})


def _metrics_of_summary(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for split in ("train", "val", "test"):
        yield from _numbers(split, summary.get(split))
    yield from _numbers("", {key: summary.get(key) for key in _OF_THE_RUN})
    best = summary.get("best")
    yield from _numbers("", {"best": best.get("value")} if isinstance(best, Mapping) else None)


def _numbers(prefix: str, values: Any) -> Iterator[tuple[str, float]]:
    for key, value in values.items() if isinstance(values, Mapping) else ():
        finite = number(value)
        if finite is not None:
            yield f"{prefix}/{key}" if prefix else str(key), finite


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else type(value).__name__


def _start_time(path: Path, environment: Mapping[str, Any]) -> float:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(str(environment.get("time"))).timestamp()
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _comparable_environment(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of `environment.json` that may explain a difference between runs of one config."""
    git, versions = environment.get("git"), environment.get("versions")
    parts = {"dataset": environment.get("dataset"), "device": environment.get("device")}
    parts |= {f"git.{key}": value for key, value in git.items()} if isinstance(git, Mapping) else {}
    parts |= {f"versions.{key}": value for key, value in versions.items()} if isinstance(versions, Mapping) else {}
    return {f"environment.{key}": value for key, value in parts.items() if isinstance(value, str)}


def is_sweep(path: Path) -> bool:
    return (path / "sweep.json").is_file()
