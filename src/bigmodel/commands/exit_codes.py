"""Run a command, and turn its failures into one-line errors and an exit code. Imports no torch."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from bigmodel.errors import AlreadyReported, BigmodelError, ConfigError, Interrupted, OutOfMemoryError, StorageError
from bigmodel.formatting import escape_control, first_line, user_code_location
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


def is_verbose(arguments: Sequence[str]) -> bool:
    """Whether a command line, or the environment, asks for tracebacks."""
    return bool({"-v", "--verbose"} & {*arguments}) or os.environ.get("BIGMODEL_TRACEBACK") == "1"


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
    except AlreadyReported as error:
        return error.exit_code if stop is None or stop.early is None else Interrupted.exit_code
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
        message = f"{type(error).__name__}: {first_line(error)}"
        if exhausted := describe_exhaustion(error):
            what, advice = exhausted
            print_errors([f"{what}: {message}; free some{advice}"])
            return OutOfMemoryError.exit_code
        system = error if isinstance(error, OSError) else system_error_in(error)
        where = user_code_location(error)
        if system is not None and system.errno in STORAGE_ERRORS and not where:
            if isinstance(error, OSError):
                silence()
                message = f"{error.filename or 'standard output, or a file'}: {error.strerror}"
            print_errors([message])
            return StorageError.exit_code
        if where and isinstance(error, ImportError):  # a package that the config names does not fit this installation
            print_errors([f"{where}: {message}"])
            return ConfigError.exit_code
        if where:
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
