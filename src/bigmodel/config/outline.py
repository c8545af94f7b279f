"""Read the groups, choices and keys of a command's config from its YAML, without composing or importing anything.

Composing takes a second, and this must answer while somebody types. Left out is what only composing can
resolve: the targets of interpolations, and files whose `@package` moves them.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from bigmodel.config.location import ConfigSource
from bigmodel.config.override_text import typed_values
from bigmodel.config.yaml_file import GOES_WITH, Entry, File, Setting, first_comment, read_file

_NAME = re.compile(r"[\w.+-]+")  # of a choice that can be typed without quotes
_MOST_FILES = 50  # that choose one another


class Outline:
    """The config that a command line chooses, as far as YAML files tell.

    `words` are what was typed, of which some choose. Unreadable files count as empty.
    """

    def __init__(self, source: ConfigSource, words: Sequence[str]) -> None:
        self._directories = source.directories
        self._name = source.name
        self._typed = typed_values(words)

    @property
    def groups(self) -> list[str]:
        """The groups that the root file names."""
        return list(self.group_entries)

    @cached_property
    def group_entries(self) -> dict[str, Entry]:
        """The groups that the root file names, each with its default choice and the comment beside it."""
        found = dict[str, Entry]()
        for entry in self._root.defaults:
            found.setdefault(entry.group, entry)
        return found

    @property
    def root_settings(self) -> dict[str, Setting]:
        """The keys of the root file alone."""
        return self._root.settings

    def choices(self, group: str) -> dict[str, str]:
        """The names of a group's choices, each with the first comment of its file."""
        files = {path.stem: path for folder in self._directories[::-1] for path in (folder / group).glob("*.yaml")}
        return {name: first_comment(files[name]) for name in sorted(files) if _NAME.fullmatch(name)}

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """The keys of the root file and of all chosen files."""
        merged: dict[str, Setting] = {}
        _merge(merged, self._root.settings)
        for group, names in self.chosen.items():
            for file in reversed(self._with_bases(group, names)):
                brought = file.settings.get(GOES_WITH, Setting()).keys
                _merge(merged, {key: one for key, one in brought.items() if key not in self.group_entries})
                own = {key: one for key, one in file.settings.items() if key != GOES_WITH}
                _merge(merged if file.is_global else _below(merged, group.split("/")), own)
        return merged

    def _with_bases(self, group: str, names: Sequence[str]) -> list[File]:
        """Return the files of choices, followed by those that they start from."""
        waiting, files = [*names], list[File]()
        for name in waiting:  # they grow
            files.append(self.read(f"{group}/{name}"))
            bases = [entry.choice for entry in files[-1].defaults if not entry.group and entry.choice != "_self_"]
            waiting += [base for base in bases[:_MOST_FILES] if base not in waiting][: max(0, _MOST_FILES - len(files))]
        return files

    @cached_property
    def chosen(self) -> dict[str, list[str]]:
        """The choices of each group: those of the root file, changed by the files that are chosen, and by the user."""
        chosen, decided = dict[str, str](), dict(self._typed)
        waiting = [*self._root.defaults]
        _decide(decided, waiting)
        for _ in range(_MOST_FILES):  # in Hydra's order: the last entry first, and the first override wins
            if not waiting:
                break
            entry = waiting.pop()
            if entry.group and not entry.overrides:
                choice = chosen[entry.group] = decided.get(entry.group, entry.choice)
                for name in _names(choice):
                    file = self.read(f"{entry.group}/{name}")
                    _decide(decided, file.defaults)
                    waiting += file.defaults
        return {group: _names(chosen[group]) for group in self.groups if group in chosen}

    def find(self, path: Sequence[str]) -> Setting | None:
        """Return the key of a dotted path, or None."""
        keys, found = self.settings, None
        for part in path:
            found = keys.get(part)
            if found is None:
                return None
            keys = found.keys
        return found

    def values(self, command: str, path: Sequence[str]) -> list[str]:
        """Return the values that a key's type lists, or else its own value, where that is plain."""
        setting = self.find(path)
        listed = list(_values_of(self._annotation(command, path)))
        value = setting.value if setting is not None and setting.value is not None else ""
        if not listed and value in ("true", "false"):
            listed = ["true", "false"]
        if not [one for one in listed if one != "null"] and _NAME.fullmatch(value) and value not in listed:
            listed.insert(0, value)
        return listed

    def _annotation(self, command: str, path: Sequence[str]) -> Any:
        from bigmodel.config import schema  # reading annotations is a third of the time, and few words need it
        from bigmodel.config.signatures import dataclass_signature, source_signature

        *parents, name = path
        signature = None
        if not parents:
            root = getattr(schema, command.capitalize(), None)
            signature = dataclass_signature(root) if root is not None else None
        elif (node := self.find(parents)) is not None and (target := node.keys.get("_target_")) is not None:
            try:
                signature = source_signature(target.value or "")
            except (ImportError, AttributeError, ValueError, OSError, SyntaxError):
                return Any
        parameter = signature.parameters.get(name) if signature is not None else None
        return parameter.annotation if parameter is not None else Any

    @cached_property
    def _root(self) -> File:
        """The root file, with what the root files that it starts from hold."""
        settings: dict[str, Setting] = {}
        defaults: list[Entry] = []
        waiting = [self._name]
        for _ in range(_MOST_FILES):
            if not waiting:
                break
            file = self.read(waiting.pop(0))
            waiting += [entry.choice for entry in file.defaults if not entry.group and entry.choice != "_self_"]
            defaults += [entry for entry in file.defaults if entry.group]
            _merge(settings, {key: one for key, one in file.settings.items() if key not in settings})
        return File(settings, defaults, is_global=True)

    def read(self, name: str) -> File:
        """Return what stands in a file, as `model/cnn`."""
        files = (folder / f"{name}.yaml" for folder in self._directories)
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            return File({})
        return read_file(file)


def _decide(decided: dict[str, str], entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.overrides:
            decided.setdefault(entry.group, entry.choice)


def _names(choice: str) -> list[str]:
    return [name for name in re.split(r"[\[\],\s]+", choice) if _NAME.fullmatch(name) and name != "null"]


def _below(tree: dict[str, Setting], path: Sequence[str]) -> dict[str, Setting]:
    for part in path:
        tree = tree.setdefault(part, Setting()).keys
    return tree


def _merge(tree: dict[str, Setting], more: Mapping[str, Setting]) -> None:
    for key, setting in more.items():
        if setting.keys:
            mine = tree.setdefault(key, Setting(setting.comment))
            mine.value = None
            _merge(mine.keys, setting.keys)
        else:
            comment = setting.comment or (tree[key].comment if key in tree else "")
            tree[key] = Setting(comment, setting.value)


def _values_of(annotation: Any) -> Iterator[str]:
    """Yield the values of a type that has few."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        yield from ("true", "false")
    elif annotation is types.NoneType:
        yield "null"
    elif origin is Literal:
        yield from (str(one).lower() if isinstance(one, bool) else str(one) for one in arguments)
    elif origin is Annotated:
        yield from _values_of(arguments[0])
    elif origin in (Union, types.UnionType):
        for one in arguments:
            yield from _values_of(one)
