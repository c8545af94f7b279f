"""Read the keys, the comments and the defaults list of one YAML file, without composing it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import yaml

from bigmodel.config.yaml_limits import yaml_text
from bigmodel.errors import ConfigError
from bigmodel.safe_files import open_regular

GOES_WITH = "goes_with"  # in a choice's file: what it chooses itself
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ENTRY = re.compile(r"(override +)?(?:optional +)?/?([\w/]+)(?:@.*)?")
_COMMENT = re.compile(r"(?:^|\s)#\s*(.*)")
_GLOBAL = "# @package _global_"
_LONGEST_HEAD = 2000  # bytes in which the first comment stands


@dataclass
class Setting:
    """A key of a config: its value as YAML spells it, or the keys below it, and the comment on its line."""

    comment: str = ""
    value: str | None = None
    keys: dict[str, Setting] = field(default_factory=dict)


class Entry(NamedTuple):
    """An entry of a defaults list; a bare name has no group."""

    group: str
    choice: str
    overrides: bool = False
    comment: str = ""


@dataclass(frozen=True)
class File:
    """A YAML file: its keys, what it chooses, and its first comment."""

    settings: dict[str, Setting]
    defaults: Sequence[Entry] = ()
    is_global: bool = False
    comment: str = ""


def read_file(file: Path) -> File:
    """Return what stands in a file; one that cannot be read counts as empty."""
    try:
        text = yaml_text(file)  # within bounds, so that aliases can be followed
        node = yaml.compose(text, _Loader)
    except (ConfigError, yaml.YAMLError, RecursionError):
        return File({})
    lines = text.splitlines()
    settings = _settings(node, lines)
    settings.pop("defaults", None)
    return File(settings, [*_defaults(node, lines)], text.startswith(_GLOBAL), _head(lines))


def first_comment(file: Path) -> str:
    """Return the first line of comment that a file begins with."""
    try:
        with open_regular(file) as stream:
            lines = stream.read(_LONGEST_HEAD).decode("utf-8-sig", "replace").splitlines()
    except OSError:
        return ""
    return next((line[2:].strip() for line in lines if line.startswith("# ") and "@package" not in line), "")


def _settings(node: yaml.Node | None, lines: Sequence[str]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for key, item in _pairs(node):
        value = None if isinstance(item, yaml.MappingNode) else _text(item)
        found[str(key.value)] = Setting(_comment(key, lines), value, _settings(item, lines))
    return found


def _comment(key: yaml.Node, lines: Sequence[str]) -> str:
    """Return the comment next to a key, with the lines below that continue it."""
    row, column = key.start_mark.line, key.start_mark.column
    match = _COMMENT.search(lines[row])
    if match is None:
        return ""
    deeper = re.compile(rf" {{{column + 1},}}# *(.*)")
    below = itertools.takewhile(bool, map(deeper.fullmatch, lines[row + 1 :]))
    return " ".join([match[1], *(one[1] for one in below if one)])


def _head(lines: Sequence[str]) -> str:
    """Return the comment that a file begins with."""
    comments = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("# ").rstrip() for line in comments if "@package" not in line)


def _pairs(node: yaml.Node | None) -> Sequence[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else ()


def _items(node: yaml.Node) -> Sequence[yaml.Node]:
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _text(node: yaml.Node) -> str:
    """Return a value as it could be typed: a text that is empty or has blanks at its ends keeps its quotes."""
    if isinstance(node, yaml.SequenceNode):
        return f"[{','.join(map(_text, _items(node)))}]"
    text = str(node.value)
    return f'"{text}"' if isinstance(node, yaml.ScalarNode) and node.style and text != (text.strip() or None) else text


def _defaults(node: yaml.Node | None, lines: Sequence[str]) -> Iterator[Entry]:
    """Yield the entries of a file's defaults list, and what goes with the choice."""
    entries = (item for key, value in _pairs(node) if key.value == "defaults" for item in _items(value))
    for entry in entries:
        if isinstance(entry, yaml.ScalarNode):
            yield Entry("", _text(entry))
        for key, value in _pairs(entry):
            if match := _ENTRY.fullmatch(_text(key)):
                yield Entry(match[2], _text(value), match[1] is not None, _comment(key, lines))
    for key, value in _pairs(node):
        if key.value == GOES_WITH:
            yield from (Entry(_text(group), _text(choice), overrides=True) for group, choice in _pairs(value))
