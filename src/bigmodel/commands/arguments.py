"""Parse `key=value` options of the commands that need no config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate


def parse_options(
    arguments: Sequence[str], defaults: Mapping[str, str], choices: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], list[str]]:
    """Return the options that `defaults` names, and all other arguments.

    Raises:
        ConfigError: a line for each unknown flag, and for each value that is not among an option's choices.
    """
    given = dict(defaults)
    rest = []
    problems = []
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if sign and name in defaults:
            given[name] = value
            if name in choices and value not in choices[name]:
                problems.append(f"{name}: there is no '{truncate(value)}'; choices: {', '.join(choices[name])}")
        elif argument.startswith("-"):
            problems.append(f"{truncate(argument)}: no such flag; see --help")
        else:
            rest.append(argument)
    if problems:
        raise ConfigError(*problems)
    return given, rest


def parse_list(text: str) -> list[str]:
    """Return the items of `[A,B]`, or the one of `A`."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else None
    return [item for item in ([text] if inner is None else inner.split(",")) if item]
