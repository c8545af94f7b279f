"""Translate errors of the system and of torch into one line that a person can act on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bigmodel.errors import ConfigError, DataError, OutOfMemoryError, StorageError
from bigmodel.formatting import first_line, format_si
from bigmodel.quoting import resume_command
from bigmodel.runs import checkpoint
from bigmodel.runs.checkpoint_path import step_of
from bigmodel.runtime.exhaustion import describe_exhaustion
from bigmodel.safe_files import STORAGE_ERRORS, TEMP_PREFIX
from bigmodel.training.state import TrainState

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ADVICE = {errno.EMFILE: ", raise the limit with ulimit -n"}


@contextlib.contextmanager
def translate_run_errors(directory: Path, state: TrainState, trust: Sequence[str] = ()) -> Iterator[None]:
    """Translate errors raised while a run is in its directory. `trust` is what its resume command must grant.

    Raises:
        ConfigError: an operation cannot be repeated bitwise, as the run demands, or torch's compiler fails.
        OutOfMemoryError: as `translate_oom`.
        StorageError: the disk refused; names the last saved step and, where the disk is full, what a save needs.
    """
    try:
        advice = "set accumulate=2 (the same updates in less memory) or lower batch_size"
        with (
            translate_nondeterminism_errors(),
            translate_compile_errors(),
            translate_oom(lambda: f"at step {state.step}; {advice}"),
        ):
            yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        good = checkpoint.list_checkpoints(directory / "checkpoints")
        last = f"last saved step: {step_of(good[0])}" if good else "no step was saved"
        advice = _ADVICE.get(error.errno or 0, "")
        why = f"{_system_message(error)}{_describe_free_space(directory, state, error)}{advice}"
        raise StorageError(
            f"{directory}: {why}; {last}; once fixed, run: {resume_command(directory, trust)}"
        ) from error


@contextlib.contextmanager
def say_how_to_resume(directory: Path, state: TrainState, trust: Sequence[str]) -> Iterator[None]:
    """Add the command that resumes the run to a DataError, such as that of a file damaged since the run began."""
    try:
        yield
    except DataError as error:
        if not checkpoint.list_checkpoints(directory / "checkpoints"):
            raise
        again = resume_command(directory, trust)
        raise DataError(*error.lines, f"stopped at step {state.step}; once it is mended, run: {again}") from error


def _system_message(error: OSError) -> str:
    """Return the system's message and the file it concerns, unless that is one of our temporary files."""
    text = error.strerror or str(error)
    name = Path(os.fsdecode(error.filename)).name if isinstance(error.filename, (str, bytes)) else ""
    return text if not name or name in text or name.startswith(TEMP_PREFIX) else f"{name}: {text}"


def _describe_free_space(directory: Path, state: TrainState, error: OSError) -> str:
    """Return the needed and the free space where the disk is full; what a quota leaves cannot be asked for."""
    if error.errno not in _FULL:
        return ""
    needed = sum(tensor.nbytes for group in state.state_tensors().values() for tensor in group.values())
    words = f"{format_si(needed, 'B')} needed for a checkpoint"
    if error.errno == errno.ENOSPC:
        disk = os.statvfs(directory)
        free = disk.f_bavail * disk.f_frsize
        words += f", {format_si(free, 'B')} free" + (f" in {disk.f_favail} files" if free > needed else "")
    return f" ({words})"


@contextlib.contextmanager
def translate_oom(where: str | Callable[[], str]) -> Iterator[None]:
    """Raise OutOfMemoryError with the text `where`, for what is raised where memory, threads or processes run
    out.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        found = describe_exhaustion(error)
        if found is None:
            raise
        what, advice = found
        raise OutOfMemoryError(f"{what} {where if isinstance(where, str) else where()}{advice}") from error


@contextlib.contextmanager
def translate_compile_errors() -> Iterator[None]:
    """Raise ConfigError for what torch's compiler raises at the first call of a compiled function."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo.", "torch._inductor.")):
            raise
        reason = first_line(getattr(error, "inner_exception", error))
        raise ConfigError(f"device.compile: torch's compiler failed: {reason}; set it to false") from error


@contextlib.contextmanager
def translate_nondeterminism_errors() -> Iterator[None]:
    """Raise ConfigError where the run demands bitwise repetition and an operation does not offer it."""
    try:
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise ConfigError(
            f"device.deterministic: {operation} is not bitwise repeatable on this device; use device=cpu, "
            "another model, or leave it false"
        ) from error
