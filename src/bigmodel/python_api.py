"""Train from Python as the command line does, in this process, and restore the process state afterwards."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from bigmodel.cli import config_source, parse, reject_undecodable
from bigmodel.errors import ConfigError, StorageError
from bigmodel.runtime.signals import StopRequest

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
        return dict(json.loads(self._text("summary.json")))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Records of `metrics.jsonl` in order: one for each logged step, validation and test."""
        return [json.loads(line) for line in self._text("metrics.jsonl").splitlines()]

    @property
    def best(self) -> dict[str, Any] | None:
        """Best value of the monitored metric and its step; None for a run without validation."""
        best = self.summary.get("best")
        return {"metric": self.summary["monitor"], "value": best["value"], "step": best["step"]} if best else None

    @property
    def state(self) -> str:
        """Status of the run: `done` or `early_stopped`."""
        return str(self.summary["state"])

    def load(self, *, device: str = "cpu", trust: Sequence[str] = ()) -> Predictor:
        """Open the run's best checkpoint for inference; see `bigmodel.load`."""
        from bigmodel.inference.predictor import open_run

        return open_run(self.directory, str(device), trust)

    def __repr__(self) -> str:
        best = self.best
        shown = f", {best['metric']}={best['value']:.4g} at step {best['step']}" if best else ""
        return f"Run({str(self.directory)!r}, {self.state}{shown})"

    def _text(self, name: str) -> str:
        file = self.directory / name
        try:
            if file.stat().st_size > _MAX_BYTES:
                raise StorageError(f"{file}: larger than {_MAX_BYTES >> 20} MiB, which no run writes")
            return file.read_text(encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{file}: cannot be read: {error.strerror or error}") from error


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
    if parsed.help or parsed.version or parsed.hydra:
        raise ConfigError("overrides: bigmodel.train only trains; for anything else use: bigmodel-train ...")
    reject_undecodable(words)
    with _handle_interrupts() as stop, _restore_process_state(words):
        from bigmodel.commands.resume import load_for_resume
        from bigmodel.commands.train import run
        from bigmodel.config import composition as compose  # imports Hydra and torch, which nothing above needs

        source = config_source(parsed, "train")
        if parsed.resume is not None:
            directory, stored = load_for_resume(parsed.resume, parsed.overrides, source, parsed.trust)
            finished = run(stored, stop, directory, resume=True)
        else:
            finished = run(compose.compose("train", parsed.overrides, source, parsed.trust), stop)
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
