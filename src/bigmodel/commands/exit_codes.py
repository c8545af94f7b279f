"""Around a command: its failures become plain lines and an exit code. Imports no torch."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bigmodel.config.old_imports import renamed_imports
from bigmodel.errors import BigmodelError, ConfigError, Interrupted, StorageError
from bigmodel.formatting import escape_control, first_line
from bigmodel.redaction import redact
from bigmodel.runtime.signals import StopRequest
from bigmodel.runtime.stdout import silence
from bigmodel.safe_files import STORAGE_ERRORS, system_error_in


def run_command(run: Callable[[StopRequest], int], verbose: bool) -> int:
    """The exit code of `run`; every failure is told in lines of stderr, or raised where it is `verbose`."""
    _open_streams()
    stop = StopRequest()
    return exit_code_of(lambda: run(stop.install()), verbose, stop)


def exit_code_of(run: Callable[[], int], verbose: bool, stop: StopRequest | None = None) -> int:
    """As `run_command`, where somebody else sees to streams and signals. `stop` tells of a signal that ended `run`."""
    try:
        code = run()
        _flush()
        return code
    except BrokenPipeError:
        silence()
        return 0
    except Exception as error:
        early = stop.early if stop is not None else None
        if isinstance(error, Interrupted) or early is not None:  # what it was raised in may have made another of it
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
        said = f"{type(error).__name__}: {first_line(error)}"
        system = error if isinstance(error, OSError) else system_error_in(error)
        if system is not None and system.errno in STORAGE_ERRORS and not _user_code_location(error):
            if isinstance(error, OSError):
                silence()
                said = f"{error.filename or 'standard output, or a file'}: {error.strerror}"
            print_errors([said])
            return StorageError.exit_code
        if where := _user_code_location(error):
            print_errors(
                [f"{where}: {said}", "this is not code of bigmodel-train; run again with -v to see the whole way"]
            )
        else:
            print_errors([f"internal error: {said}", "this is a bug in bigmodel-train; run again with -v to see where"])
        return 1


def _flush() -> None:
    """StorageError where what was printed cannot be written: Python would tell it as it exits, in words of its own."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence()
        raise StorageError(f"standard output: {error.strerror or error}") from error


def _user_code_location(error: Exception) -> str:
    """The innermost line that is neither this package's nor an installed library's: in a model of one's own, say."""
    ours, where = {"bigmodel", "hydra_plugins", *sys.stdlib_module_names}, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        installed = {"site-packages", "dist-packages"} & set(file.parts)
        if package not in ours and not installed and file.is_file():  # generated code has no file
            where = f"{file}, line {line}"
    return where


def print_errors(lines: Sequence[str]) -> None:
    """Each line as an error on stderr."""
    for line in lines:  # what a line quotes may hold control codes, or end it
        with contextlib.suppress(OSError):  # of a stderr that is full: the exit code is left
            print(f"error: {escape_control(redact(line))}", file=sys.stderr)


def _open_streams() -> None:
    """Where a stream was closed (`>&-`), let it lead nowhere; else the next file opened would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the rest of the process
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a letter that the terminal lacks is no reason to fail
