"""Parse overrides by Hydra's grammar, with the loader that `glob` needs to list the choices of a group."""

from __future__ import annotations

import re
import shlex
import string
from itertools import islice
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer
from hydra.errors import HydraException

from bigmodel.errors import ConfigError
from bigmodel.formatting import first_line, truncate
from bigmodel.quoting import is_typed, quote
from bigmodel.redaction import is_secret_key

_UNQUOTED = frozenset(string.ascii_letters + string.digits + "_/-+.$%*@?|()[]{}:=, \t\\")
_UNPARSED = "cannot be parsed; write key=value, and quote spaces and commas"
_IN_A_FUNCTION = re.compile(r"\w+ while evaluating '(?P<call>.*)': (?P<why>.*)", re.DOTALL)


def make_parser(loader: ConfigLoader) -> OverridesParser:
    """Make a parser of overrides; `glob(*)` needs its loader."""
    return OverridesParser.create(config_loader=loader)


def parse_override(text: str, loader: ConfigLoader) -> Override:
    """Read one override.

    Raises:
        ConfigError: Hydra's grammar cannot read it, or a function in it is called wrongly.
    """
    try:
        override = make_parser(loader).parse_override(text)
        override.config_loader = loader  # which `parse_override` forgets
        return override
    except (HydraException, ValueError, RecursionError) as error:
        raise ConfigError(explain_parse_error(text, error)) from error


def explain_parse_error(text: str, error: BaseException) -> str:
    """Say in one line why an override cannot be parsed, and how to quote it."""
    key, sign, value = text.partition("=")
    if sign and is_secret_key(key):
        return f"{truncate(f'{key}=***')}: {_UNPARSED}: 'key=\"some text\"'"
    match = _IN_A_FUNCTION.match(str(error))
    if match:
        why = first_line(ValueError(match["why"])).partition(": ")[0]
        return f"{truncate(text)}: {why[:1].lower()}{why[1:]}"
    quoted = shlex.quote(f'{key}="{value}"') if sign and '"' not in value and len(value) < 60 else "'key=\"some text\"'"
    return f"{truncate(text)}: {_UNPARSED}: {truncate(quoted)}"


def format_value(value: Any) -> str:
    """Format a value so that Hydra's grammar reads it back; Hydra's own formatting leaves out needed quotes."""
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{Transformer.str(key)}:{format_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, str) and re.fullmatch(r"\$\{[^{}]+\}", value):
        return value
    if isinstance(value, str) and (is_typed(value) or not _UNQUOTED.issuperset(value)):
        return quote(value)
    text: str = Transformer.str(value)
    return text


def swept_values(override: Override, most: int | None) -> list[str]:
    """Return up to `most` overrides that an override stands for: one for each value of a sweep, or itself.

    Raises:
        ConfigError: the override has no value, or its values cannot be enumerated.
    """
    key, text = override.get_key_element(), str(override.input_line)
    if not override.is_sweep_override():
        return [text]
    try:
        if override.is_interval_sweep():
            interval: Any = override.value()
            return [f"{key}={end}" for end in (interval.start, interval.end)]
        found = [f"{key}={value}" for value in islice(override.sweep_iterator(format_value), most)]
    except (HydraException, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(explain_parse_error(text, error)) from error
    if not found:
        raise ConfigError(f"{truncate(text)}: there is no value in it")
    return found
