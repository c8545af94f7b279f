"""Check the bounds of a YAML file before it is loaded: a few lines can stand for more values than a memory holds."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from bigmodel.errors import ConfigError
from bigmodel.formatting import first_line, truncate
from bigmodel.safe_files import open_regular

_LARGEST_FILE, _MOST_VALUES, _DEEPEST = 1 << 20, 20_000, 50
ANOTHER = "the number "  # begins what is said of one that would be read as another
_Events = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def yaml_text(file: Path) -> str:
    """Read the text of a YAML file within bounds, without a byte order mark. It is read once; no alias is followed.

    Raises:
        ConfigError: the file is no YAML, no regular file, too large, nested too deep, stands for too many values, or
            asks for objects; with the line where there is one.
    """
    try:
        text = _content(file).decode("utf-8-sig")
        _check_limits(file, text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file}: cannot be read as a config: {getattr(error, 'strerror', None) or first_line(error)}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(yaml_problem(file, error)) from error
    return text


def yaml_problem(file: Path, error: yaml.YAMLError) -> str:
    """Describe a YAML error in one line with the file's line number."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return f"{file}: is not YAML: {first_line(error)}"
    where = f"{file}, line {mark.line + 1}, column {mark.column + 1}"
    if problem.startswith("found duplicate key"):
        key = truncate(problem.removeprefix("found duplicate key "))
        return f"{where}: the key '{key}' stands there twice; remove one"
    if problem.startswith(ANOTHER):
        return f"{where}: {problem}"
    hint = "; a tab indents nothing in YAML, use spaces" if "tab" in problem or "any token" in problem else ""
    return f"{where}: is not YAML: {truncate(problem, 200)}{hint}"


def _content(file: Path) -> bytes:
    """Read a regular file; a pipe is refused, not waited for."""
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(_LARGEST_FILE + 1) if size <= _LARGEST_FILE else b""
    if max(size, len(content)) > _LARGEST_FILE:
        raise ConfigError(f"{file}: {max(size, len(content))} bytes exceed the {_LARGEST_FILE} of a config")
    return content


def _check_limits(file: Path, text: str) -> None:
    values = 0
    anchors: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=_Events):
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
            raise ConfigError(f"{file}: must not create a Python object: '{truncate(event.tag)}'")
        if values > _MOST_VALUES or len(open_) > _DEEPEST:
            raise ConfigError(f"{file}: stands for more than {_MOST_VALUES} values, or is nested too deep")
