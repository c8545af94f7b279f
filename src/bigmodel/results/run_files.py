"""A run's config and its JSON files, read from regular files of bearable size; what is odd costs a warning."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bigmodel.durable import open_regular
from bigmodel.errors import ConfigError
from bigmodel.results.choices import choice
from bigmodel.strange_yaml import refuse_strange
from bigmodel.words import clip, first_line

_LARGEST = 16 << 20  # bytes of a JSON file, and of what is read of metrics.jsonl
_LONGEST_LINE = 1 << 16
_LARGEST_NUMBER = 1 << 64
_OWN_FACTS = {"state", "age", "path", "step", "steps", "best", "seconds", "samples_per_s"}  # no keys of a config
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def config_of(file: Path, warnings: list[str]) -> dict[str, Any]:
    try:
        text = text_of(file)
        refuse_strange(file)
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
        config[clip(key)] = _tamed(value)
        odd += [] if config[clip(key)] is value else [clip(key)]
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
        return value if len(value) < _LONGEST_LINE and value.isprintable() else clip(value)
    if isinstance(value, list):
        tamed = [_tamed(item) for item in value]
        return value if all(map(operator.is_, tamed, value)) else tamed
    if isinstance(value, dict) and not value:
        return value
    return clip(repr(value)) if not isinstance(value, (set, bytes)) else type(value).__name__


def _flat(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; a node's own key stands for its target, as `model: cnn`."""
    if not isinstance(node, Mapping) or not node:
        yield path, node
        return
    for key, value in node.items():
        if key == "_target_":
            yield path, choice(path, node)
        else:
            yield from _flat(f"{path}.{key}" if path else str(key), value)


def json_of(file: Path, warnings: list[str]) -> dict[str, Any]:
    try:
        loaded = json.loads(text_of(file))
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


def text_of(file: Path, whole: bool = True) -> str:
    """A regular file's text; OSError for anything else, ValueError for one that is too large, unless a part will do."""
    with open_regular(file) as stream:
        content = stream.read(_LARGEST + 1)
    if whole and len(content) > _LARGEST:
        raise ValueError(f"more than {_LARGEST} bytes are too many")
    return content.decode("utf-8", "strict" if whole else "replace")
