"""Read a run's config and JSON files, from regular files of limited size; unusual content costs a warning."""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bigmodel.config.renamed import with_current_names
from bigmodel.config.yaml_limits import yaml_text
from bigmodel.errors import ConfigError
from bigmodel.formatting import first_line, truncate
from bigmodel.runs.choice_names import choice_name
from bigmodel.safe_files import read_text

_MAX_JSON = 16 << 20  # bytes of summary.json and the like
_MAX_TEXT = 1 << 16  # characters of a value
_MAX_INTEGER = 1 << 64
_RUN_FIELDS = {"state", "age", "path", "step", "steps", "best", "seconds", "samples_per_s"}  # not keys of a config
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(file: Path, warnings: list[str]) -> dict[str, Any]:
    """Read a `config.yaml` into flat, dotted keys; unreadable parts are left out, with a line in `warnings`."""
    try:
        loaded = yaml.load(yaml_text(file), _Loader)
    except ConfigError as error:
        warnings += error.lines
        return {}
    except Exception as error:  # a tag with a wrong value, such as `!!bool abc`, raises any type of error
        warnings.append(f"{file}: cannot be read: {_reason(error)}")
        return {}
    if not isinstance(loaded, dict):
        warnings.append(f"{file}: is not a config: it has no keys")
        return {}
    config, unusual = {}, []
    for key, value in _flatten("", with_current_names(loaded)):
        config[truncate(key)] = _displayable(value)
        unusual += [] if config[truncate(key)] is value else [truncate(key)]
    for key in _RUN_FIELDS & config.keys():
        unusual.append(key)
        del config[key]
    if unusual:
        named = ", ".join(unusual[:3]) + (" ..." if len(unusual) > 3 else "")
        warnings.append(f"{file}: values that no setting has are shown as text or left out: {named}")
    return config


def _displayable(value: Any) -> Any:
    """Return a value that can be shown and compared: text, booleans, numbers of limited size, and lists of them."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < _MAX_INTEGER else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return value
    if isinstance(value, str):
        return value if len(value) < _MAX_TEXT and value.isprintable() else truncate(value)
    if isinstance(value, list):
        items = [_displayable(item) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    if isinstance(value, dict) and not value:
        return value
    return truncate(repr(value)) if not isinstance(value, (set, bytes)) else type(value).__name__


def _flatten(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with their values; the key of a node with a target gets its choice, as `model: cnn`."""
    if not isinstance(node, Mapping) or not node:
        yield path, node
        return
    for key, value in node.items():
        if key == "_target_":
            yield path, choice_name(path, node)
        else:
            yield from _flatten(f"{path}.{key}" if path else str(key), value)


def read_json(file: Path, warnings: list[str]) -> dict[str, Any]:
    """Read a JSON object; a missing file gives an empty one, an unreadable one also a line in `warnings`."""
    try:
        loaded = json.loads(read_text(file, _MAX_JSON))
        if isinstance(loaded, dict):
            return loaded
        warnings.append(f"{file}: has no keys")
    except FileNotFoundError:
        pass  # the run has not written it yet
    except (OSError, ValueError, RecursionError) as error:
        warnings.append(f"{file}: cannot be read: {_reason(error)}")
    return {}


def _reason(error: Exception) -> str:
    """Return the first line of an error, for an OSError without its number and path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "set_int_max_str_digits" in str(error):  # Python's limit, which is no advice for a file
        return f"a number of more than {sys.get_int_max_str_digits()} digits"
    is_plain = isinstance(error, (OSError, ValueError, RecursionError, yaml.YAMLError))
    return first_line(error) if is_plain else f"{type(error).__name__}: {first_line(error)}"
