"""A run's config and its JSON files, read from regular files of bearable size; what is odd costs a warning."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bigmodel.config.yaml_limits import check_yaml_limits
from bigmodel.errors import ConfigError
from bigmodel.formatting import first_line, truncate
from bigmodel.runs.choice_names import choice_name
from bigmodel.safe_files import open_regular

_LARGEST = 16 << 20  # bytes of a JSON file, and of what is read of metrics.jsonl
_LONGEST_LINE = 1 << 16
_LARGEST_NUMBER = 1 << 64
_OWN_FACTS = {"state", "age", "path", "step", "steps", "best", "seconds", "samples_per_s"}  # no keys of a config
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(file: Path, warnings: list[str]) -> dict[str, Any]:
    try:
        text = read_text_file(file)
        check_yaml_limits(file)
        loaded = yaml.load(text, _Loader)
    except ConfigError as error:
        warnings += error.lines
        return {}
    except Exception as error:  # a tag whose value is not of its kind, as `!!bool abc`, raises anything
        warnings.append(f"{file}: cannot be read: {_reason(error)}")
        return {}
    if not isinstance(loaded, dict):
        warnings.append(f"{file}: is not a config: it holds no keys")
        return {}
    config, odd = {}, []
    for key, value in _flat("", loaded):
        config[truncate(key)] = _tamed(value)
        odd += [] if config[truncate(key)] is value else [truncate(key)]
    for key in _OWN_FACTS & config.keys():  # a run's own facts are not what its config calls so
        odd.append(key)
        del config[key]
    if odd:
        named = ", ".join(odd[:3]) + (" ..." if len(odd) > 3 else "")
        warnings.append(f"{file}: holds what is no value of a setting, and is shown as text or left out: {named}")
    return config


def _tamed(value: Any) -> Any:
    """A value that can be shown and compared: texts, truth values, numbers of a bearable size, and lists of them."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < _LARGEST_NUMBER else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return value
    if isinstance(value, str):
        return value if len(value) < _LONGEST_LINE and value.isprintable() else truncate(value)
    if isinstance(value, list):
        tamed = [_tamed(item) for item in value]
        return value if all(map(operator.is_, tamed, value)) else tamed
    if isinstance(value, dict) and not value:
        return value
    return truncate(repr(value)) if not isinstance(value, (set, bytes)) else type(value).__name__


def _flat(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; a node's own key stands for its target, as `model: cnn`."""
    if not isinstance(node, Mapping) or not node:
        yield path, node
        return
    for key, value in node.items():
        if key == "_target_":
            yield path, choice_name(path, node)
        else:
            yield from _flat(f"{path}.{key}" if path else str(key), value)


def read_json(file: Path, warnings: list[str]) -> dict[str, Any]:
    try:
        loaded = json.loads(read_text_file(file))
        if isinstance(loaded, dict):
            return loaded
        warnings.append(f"{file}: holds no keys")
    except FileNotFoundError:
        pass  # a run that has not got so far
    except (OSError, ValueError, RecursionError) as error:
        warnings.append(f"{file}: cannot be read: {_reason(error)}")
    return {}


def _reason(error: Exception) -> str:
    """The first line of an error, without the number and the path that an OSError's has."""
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error)


def read_text_file(file: Path, whole: bool = True) -> str:
    """A regular file's text; OSError for anything else, ValueError for one that is too large, unless a part will do."""
    with open_regular(file) as stream:
        content = stream.read(_LARGEST + 1)
    if whole and len(content) > _LARGEST:
        raise ValueError(f"more than {_LARGEST} bytes are too many")
    return content.decode("utf-8", "strict" if whole else "replace")
