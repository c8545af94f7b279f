"""Run a command, and turn its failures into one-line errors and an exit code. Imports no torch."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bigmodel.config.old_imports import renamed_imports
from bigmodel.errors import BigmodelError, ConfigError, Interrupted, OutOfMemoryError, StorageError
from bigmodel.formatting import escape_control, first_line
from bigmodel.redaction import redact
from bigmodel.runtime.exhaustion import describe_exhaustion
from bigmodel.runtime.signals import StopRequest
from bigmodel.runtime.stdout import silence
from bigmodel.safe_files import STORAGE_ERRORS, system_error_in


def run_command(run: Callable[[StopRequest], int], verbose: bool) -> int:
    """Run a command with signal handlers. Returns its exit code; failures go to stderr, or are raised if `verbose`."""
    _open_streams()
    stop = StopRequest()
    return exit_code_of(lambda: run(stop.install()), verbose, stop)


def exit_code_of(run: Callable[[], int], verbose: bool, stop: StopRequest | None = None) -> int:
    """Map exceptions to exit codes and one-line errors, for callers that have set up streams and signal handlers.

    `stop` knows whether a signal has ended `run`.
    """
    try:
        code = run()
        _flush()
        return code
    except BrokenPipeError:
        silence()
        return 0
    except Exception as error:
        early = stop.early if stop is not None else None
        if isinstance(error, Interrupted) or early is not None:  # code that caught it may have raised another error
            stopped = early or error
            with contextlib.suppress(OSError):
                print("\n".join(getattr(stopped, "lines", ())), file=sys.stderr)
            return Interrupted.exit_code
        if verbose:
            raise
        if isinstance(error, BigmodelError):
            print_errors(error.lines)
            return error.exit_code
        if lines := renamed_imports(error):
            print_errors(lines)
            return ConfigError.exit_code
        message = f"{type(error).__name__}: {first_line(error)}"
        if exhausted := describe_exhaustion(error):
            what, advice = exhausted
            print_errors([f"{what}: {message}; free some{advice}"])
            return OutOfMemoryError.exit_code
        system = error if isinstance(error, OSError) else system_error_in(error)
        if system is not None and system.errno in STORAGE_ERRORS and not _user_code_location(error):
            if isinstance(error, OSError):
                silence()
                message = f"{error.filename or 'standard output, or a file'}: {error.strerror}"
            print_errors([message])
            return StorageError.exit_code
        if where := _user_code_location(error):
            print_errors([f"{where}: {message}", "the error is in your code; run again with -v for the traceback"])
        else:
            bug = "this is a bug in bigmodel-train; run again with -v for the traceback"
            print_errors([f"internal error: {message}", bug])
        return 1


def _flush() -> None:
    """Flush stdout. Raises StorageError if that fails, which Python would otherwise report in its own words."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence()
        raise StorageError(f"standard output: {error.strerror or error}") from error


def _user_code_location(error: Exception) -> str:
    """Return "FILE, line N" of the innermost traceback frame in user code, or "" if there is none."""
    own, where = {"bigmodel", "hydra_plugins", *sys.stdlib_module_names}, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        installed = {"site-packages", "dist-packages"} & set(file.parts)
        if package not in own and not installed and file.is_file():  # generated code has no file
            where = f"{file}, line {line}"
    return where


def print_errors(lines: Sequence[str]) -> None:
    """Print each line as an error on stderr, with control characters escaped."""
    for line in lines:
        with contextlib.suppress(OSError):  # if stderr is full, the exit code still tells
            print(f"error: {escape_control(redact(line))}", file=sys.stderr)


def _open_streams() -> None:
    """Open /dev/null for streams that were closed (`>&-`); else the next opened file would get their descriptor."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the rest of the process
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a letter that the terminal lacks must not fail
