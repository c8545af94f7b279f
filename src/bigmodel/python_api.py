"""Train and list runs from Python as the command line does; training restores the process state afterwards."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, overload

from bigmodel.cli import import_from_working_directory
from bigmodel.commands.command_line import parse
from bigmodel.commands.runs import ListedRun, columns_with, format_cell, parse_conditions, select_runs, table_lines
from bigmodel.errors import ConfigError, StorageError
from bigmodel.runs.display.course import compare_runs, show_run
from bigmodel.runs.display.html import escape, rows_table
from bigmodel.runs.records import RunRecord, find_runs, is_run, read_run, read_run_or_sweep, sweep_runs
from bigmodel.runs.tolerant_json import parse_jsonl
from bigmodel.runtime.signals import StopRequest
from bigmodel.safe_files import read_bytes

if TYPE_CHECKING:
    from bigmodel.inference.predictor import Predictor

_MAX_BYTES = 64 << 20  # of summary.json and metrics.jsonl


@dataclass(frozen=True)
class Run:
    """A run directory. Each property reads its file again, so that a run that was resumed shows its current state."""

    directory: Path

    @property
    def summary(self) -> dict[str, Any]:
        """Content of `summary.json`: state, last metrics, test metrics, best, seconds."""
        return dict(json.loads(self._content("summary.json")))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Records of `metrics.jsonl` in order: one for each logged step, validation and test."""
        return list(parse_jsonl(self._content("metrics.jsonl").splitlines()))

    @property
    def config(self) -> dict[str, Any]:
        """Content of `config.yaml` by dotted keys, as `optim.lr`; a group holds the name of its choice."""
        return dict(self._record().config)

    @property
    def best(self) -> dict[str, Any] | None:
        """Best value of the monitored metric and its step; None for a run without validation."""
        best = self.summary.get("best")
        return {"metric": self.summary["monitor"], "value": best["value"], "step": best["step"]} if best else None

    @property
    def state(self) -> str:
        """Status of the run: `done`, `early_stopped`, `failed`, `interrupted`, `pruned`, or `running` for now."""
        return self._record().state

    def load(self, *, device: str = "cpu", trust: Sequence[str] = ()) -> Predictor:
        """Open the run's best checkpoint for inference; see `bigmodel.load`."""
        from bigmodel.inference.predictor import open_run

        return open_run(self.directory, str(device), trust)

    def __fspath__(self) -> str:
        """Return the directory, so that a run stands where a path is wanted: `bigmodel.load(run)`."""
        return str(self.directory)

    def __repr__(self) -> str:
        record = self._record()
        value = record.metrics.get("best")
        shown = f", {record.monitor}={value:.4g}" if value is not None else ""
        with suppress(StorageError, ValueError, LookupError, TypeError):  # of a run that was killed
            shown += f" at step {self.summary['best']['step']}" if shown else ""
        return f"Run({str(self.directory)!r}, {record.state}{shown})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: choices, results and curves."""
        return show_run(self._record())

    def _record(self) -> RunRecord:
        return read_run(self.directory, [])

    def _content(self, name: str) -> bytes:
        file = self.directory / name
        try:
            return read_bytes(file, _MAX_BYTES)
        except OSError as error:
            raise StorageError(f"{file}: cannot be read: {error.strerror or error}") from error


class Runs(Sequence[Run]):
    """Runs in an order, as `bigmodel.runs` lists them. `warnings` name what could not be read."""

    def __init__(self, listed: Sequence[ListedRun], keys: Sequence[str], warnings: Sequence[str] = ()) -> None:
        self._listed = listed
        self._keys = keys  # of conditions and of the order, which the table shows too
        self.warnings = tuple(warnings)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """State, age in seconds, path, config and metrics of each run by dotted keys, as for a data frame."""
        return [dict(one.fields) for one in self._listed]

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...

    def __getitem__(self, index: int | slice) -> Run | Runs:
        if isinstance(index, slice):
            return Runs(self._listed[index], self._keys, self.warnings)
        return Run(self._listed[index].record.path.absolute())

    def __len__(self) -> int:
        return len(self._listed)

    def __repr__(self) -> str:
        lines = table_lines(self._listed, self._keys) if self._listed else ["no runs"]
        return "\n".join([*lines, *(f"warning: {line}" for line in self.warnings)])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a table, and how the monitored metric went in each run."""
        columns = columns_with(self._keys)
        rows = [[format_cell(one.fields, key) for key in columns] for one in self._listed]
        said = "".join(f"<p>warning: {escape(line)}</p>" for line in self.warnings)
        return rows_table(columns, rows) + compare_runs([one.record for one in self._listed]) + said


def runs(directory: str | os.PathLike[str], conditions: Sequence[str], sort: str, limit: int | None) -> Runs:
    """List runs; see `bigmodel.runs`.

    Raises:
        ConfigError: there is no such directory, or a condition cannot be parsed or names a key that no run has.
    """
    parsed = parse_conditions(conditions)
    path = Path(directory)
    warnings: list[str] = []
    if not path.is_dir():
        raise ConfigError(f"directory: there is no directory '{path}'")
    is_one = is_run(path, warnings) or sweep_runs(path)
    found = read_run_or_sweep(path, warnings) if is_one else find_runs(path, warnings)
    listed = select_runs(found, parsed, sort, limit, warnings)
    return Runs(listed, [sort.removeprefix("-"), *(condition.key for condition in parsed)], warnings)


class _InterruptOnce(StopRequest):
    """Save and stop at the first interrupt, as the command line does; raise KeyboardInterrupt at the second."""

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self():
            raise KeyboardInterrupt
        super().handle(number, frame)


def train(overrides: Sequence[str], *, dry_run: bool = False) -> Run | None:
    """Train one run; see `bigmodel.train`.

    Raises:
        BigmodelError: where the command line would print an error.
    """
    if not isinstance(overrides, (list, tuple)) or not all(isinstance(word, str) for word in overrides):
        raise ConfigError('overrides: must be a list of strings, as ["model=mlp", "epochs=3"]')
    words = [*overrides, *(["dry_run=true"] if dry_run else [])]
    parsed = parse(words)
    if parsed.multirun or parsed.seeds is not None:
        raise ConfigError("overrides: bigmodel.train makes one run; for a sweep use: bigmodel-train -m ...")
    if parsed.help or parsed.version or parsed.hydra_flags or parsed.completion is not None:
        raise ConfigError("overrides: bigmodel.train only trains; for anything else use: bigmodel-train ...")
    with _handle_interrupts() as stop, _restore_process_state(words):
        from bigmodel.commands.resume import load_for_resume
        from bigmodel.commands.train import run_in_this_process
        from bigmodel.config.composition import compose  # imports Hydra and torch, which nothing above needs

        import_from_working_directory(parsed.trust)
        source, directory = parsed.config_source("train"), None
        if parsed.resume is not None:
            directory, config = load_for_resume(parsed.resume, parsed.overrides, source, parsed.trust)
        else:
            config = compose("train", parsed.overrides, source, parsed.trust)
        if config.values["device"].get("count", 1) != 1 and not config.values["dry_run"]:
            raise ConfigError("device.count: bigmodel.train computes in this process alone; use: bigmodel-train ...")
        finished = run_in_this_process(config, stop, directory, parsed.resume is not None, parsed.is_own)
    return None if finished is None else Run(Path(finished).absolute())


@contextmanager
def _handle_interrupts() -> Iterator[StopRequest]:
    """Let an interrupt stop the run as on the command line. Only the main thread may set signal handlers."""
    stop = _InterruptOnce()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, stop.handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _restore_process_state(words: Sequence[str]) -> Iterator[None]:
    """Restore everything that a run changes for its whole process.

    glibc's thresholds for returning freed memory stay changed, because they cannot be read; they affect no result.
    """
    import torch

    from bigmodel.runtime.lazy_compiler import set_deterministic_algorithms

    argv = sys.argv
    path = list(sys.path)
    environment = dict(os.environ)
    random_state = torch.get_rng_state()
    num_threads = torch.get_num_threads()
    matmul_precision = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    allow_tf32 = torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    on_gpu = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    gpu, gpu_states = (torch.cuda.current_device(), torch.cuda.get_rng_state_all()) if on_gpu else (0, [])
    sys.argv = ["bigmodel-train", *words]  # environment.json records the equivalent command
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    try:
        yield
    finally:
        sys.argv = argv
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
        torch.set_rng_state(random_state)
        torch.set_num_threads(num_threads)
        torch.set_float32_matmul_precision(matmul_precision)
        if (deterministic, warn_only) != (torch.are_deterministic_algorithms_enabled(), False):
            if warn_only:
                torch.use_deterministic_algorithms(deterministic, warn_only=True)
            else:
                set_deterministic_algorithms(deterministic)
        torch.backends.cudnn.allow_tf32 = allow_tf32
        torch.backends.cudnn.benchmark = benchmark
        if on_gpu:
            torch.cuda.set_device(gpu)
            torch.cuda.set_rng_state_all(gpu_states)
