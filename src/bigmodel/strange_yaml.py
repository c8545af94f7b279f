"""Bounds on a YAML file, held before it is loaded: a few lines can stand for more values than a memory holds."""

from __future__ import annotations

from pathlib import Path

import yaml

from bigmodel.durable import open_regular
from bigmodel.errors import ConfigError
from bigmodel.words import clip, first_line

_LARGEST_FILE, _MOST_VALUES, _DEEPEST = 1 << 20, 20_000, 50
_Events = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def refuse_strange(file: Path) -> None:
    """Read a file's events, which builds nothing, and count what its aliases of aliases stand for.

    Raises:
        ConfigError: the file is no YAML, too large, nested too deep, stands for too many values, or asks for objects.
    """
    try:
        _hold(file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file}: cannot be read as a config: {getattr(error, 'strerror', None) or first_line(error)}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not YAML: {first_line(error)}") from error


def _hold(file: Path) -> None:
    if file.stat().st_size > _LARGEST_FILE:
        raise ConfigError(f"{file}: {file.stat().st_size} bytes are too many for a config")
    values = 0
    anchors: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    with open_regular(file, _LARGEST_FILE) as stream:
        for event in yaml.parse(stream, Loader=_Events):
            if isinstance(event, yaml.AliasEvent):
                values += anchors.get(event.anchor, _MOST_VALUES)  # of itself, from inside: without end
            elif isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, values))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = open_.pop()
                anchors |= {anchor: values - before} if anchor else {}
            elif isinstance(event, yaml.ScalarEvent):
                values += 1
                anchors |= {event.anchor: 1} if event.anchor else {}
            if str(getattr(event, "tag", None) or "").startswith("tag:yaml.org,2002:python/"):
                raise ConfigError(f"{file}: asks for a Python object: '{clip(event.tag)}'")
            if values > _MOST_VALUES or len(open_) > _DEEPEST:
                raise ConfigError(f"{file}: stands for more than {_MOST_VALUES} values, or is nested too deep")
