"""`key=value` options of the commands that need no config: they read what is there, and build nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate


def parse_options(
    words: Sequence[str], defaults: Mapping[str, str], choices: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], list[str]]:
    """The options of these names, and all other words as they are.

    Raises:
        ConfigError: a line for each flag, and for each option whose value is not among its choices.
    """
    given, rest, problems = dict(defaults), [], []
    for word in words:
        name, sign, value = word.partition("=")
        if sign and name in defaults:
            given[name] = value
            if name in choices and value not in choices[name]:
                problems.append(f"{name}: there is no '{truncate(value)}'; choices: {', '.join(choices[name])}")
        elif word.startswith("-"):
            problems.append(f"{truncate(word)}: no such flag; see --help")
        else:
            rest.append(word)
    if problems:
        raise ConfigError(*problems)
    return given, rest
