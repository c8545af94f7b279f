"""Errors that users can act on, each with its exit code. A line says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class BigmodelError(Exception):
    """A failure that a person can act on; printed as plain lines, without a traceback."""

    exit_code = 1

    @property
    def code(self) -> int:
        """The exit code that the command line ends with for this failure."""
        return self.exit_code

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class ConfigError(BigmodelError):
    """The command line or a YAML file is wrong; one line for each mistake."""

    exit_code = 2


class DataError(BigmodelError):
    """Data is missing or damaged; says what was looked for, where, and how to get it."""

    exit_code = 3


class MissingColumnError(DataError):
    """A table lacks a column that a key of the config names; `keys` are such keys, where they are known."""

    def __init__(self, place: str, column: str, reason: str, keys: Sequence[str] = ()) -> None:
        named = f" ({', '.join(keys)})" if keys else ""
        super().__init__(f"{place}: needs one column '{column}'{named}; {reason}")
        self.place = place
        self.column = column
        self.reason = reason


class DivergedError(BigmodelError):
    """Loss or gradient is not finite; raised before the weights are touched."""

    exit_code = 4


class StorageError(BigmodelError):
    """The disk is full, read-only or damaged; names the last saved step."""

    exit_code = 5


class OutOfMemoryError(BigmodelError):
    """Memory is exhausted; names the setting to change."""

    exit_code = 6


class Interrupted(BigmodelError):
    """Stopped by a signal; what was reached is saved and can be resumed."""

    exit_code = 75


class PeerLost(BigmodelError):
    """Another rank of the run has ended; it, or the process that started it, says why."""


class AlreadyReported(BigmodelError):
    """A failure that another process has reported; only its exit code is left to pass on."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def suggest(word: str, choices: Sequence[str], prefix: str = "") -> str:
    """Return `did you mean …?` with the closest choice, or list all choices where none is close."""
    import difflib  # only a mistake needs it

    same = [choice for choice in choices if choice.casefold() == word.casefold()]  # GPT is gpt
    close = same or difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return "choices: " + ", ".join(sorted(choices)) if choices else "there is nothing to choose from"
