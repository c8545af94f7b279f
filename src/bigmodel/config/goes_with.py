"""`goes_with: {task: classification, model: text_cnn}` in the YAML of a dataset or a task: its preferred choices.

They reach Hydra as overrides in a defaults list. A choice of a group holds unless the command line, an experiment or
the user's root file chooses from that group. A key that is no group, such as `monitor`, overrides train.yaml.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigmodel.config.yaml_file import GOES_WITH as KEY
from bigmodel.errors import ConfigError

__all__ = ["KEY", "Brought"]

_BRINGING = ("dataset", "task")  # groups that train.yaml lists after those they choose from


@dataclass
class Brought:
    """Choices and keys from the `goes_with` of all files of one composition, in the order in which they were read."""

    groups: dict[str, Any] = field(default_factory=dict)  # of the root files, with their choices
    values: dict[str, Any] = field(default_factory=dict)  # keys of the built-in root file
    by: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # as ("dataset=trec", {"model": "text_cnn"})
    fixed: set[str] = field(default_factory=set)  # groups of the user's root file
    chosen: set[str] = field(default_factory=set)  # keys that an experiment or the user's root file sets

    def lines(self, typed: Collection[str]) -> list[str]:
        """Return a line for each file that brought something else than the defaults; `typed` are keys that had it."""
        decided, lines = {*typed, *self.chosen}, []
        for file, brought in self.by:
            held = {key: value for key, value in brought.items() if key not in decided}
            decided |= brought.keys()
            if any(value != self._default(key) for key, value in held.items()):
                shown = " ".join(f"{key}={_shown(value)}" for key, value in held.items())
                lines.append(f"chosen by {file}: {shown}")
        return lines

    def _default(self, key: str) -> Any:
        return self.groups[key] if key in self.groups else self.values.get(key)

    def read_root(self, tree: Mapping[Any, Any], is_own: bool) -> None:
        """Record the groups of a root file. Data and task do not override the choices of the user's own."""
        groups = dict(_entries(tree))
        self.groups |= groups
        if is_own:
            self.fixed |= groups.keys()
            self._read_chosen(tree)
        else:
            self.values |= tree

    def with_choices(self, file: Path, path: str, tree: dict[Any, Any]) -> dict[Any, Any]:
        """Return a choice, as `dataset/trec`, with what it brings as overrides in its defaults list.

        Raises:
            ConfigError: it is no mapping, or the group cannot bring anything.
        """
        group, _, name = path.partition("/")
        if group == "experiment":
            self._read_chosen(tree)
        if group == "experiment" or KEY not in tree:
            return tree
        brought = tree[KEY]
        if group not in _BRINGING:
            raise ConfigError(f"{file}: {KEY}: only a dataset or a task may have it, not a {group}")
        if not isinstance(brought, Mapping):
            raise ConfigError(f"{file}: {KEY}: must hold choices and keys, as {{model: cnn}}, got {brought!r}")
        self.by.append((f"{group}={name}", {str(key): value for key, value in brought.items()}))
        own = defaults_of(tree)
        entries = [entry for entry in own if not _overrides(entry)]
        if any(key not in self.groups for key in brought):
            entries += [*(() if "_self_" in entries else ["_self_"]), f"/{path}/{KEY}@_global_"]
        entries += filter(_overrides, own)  # Hydra wants them last
        chosen = {key: value for key, value in brought.items() if key in self.groups and key not in self.fixed}
        entries += ({f"override /{key}@_global_.{key}": value} for key, value in chosen.items())
        return {key: value for key, value in tree.items() if key != KEY} | {"defaults": entries}

    def values_of(self, tree: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return what a choice brings that is no group."""
        brought = tree.get(KEY)
        items = brought.items() if isinstance(brought, Mapping) else ()
        return {key: value for key, value in items if key not in self.groups}

    def _read_chosen(self, tree: Mapping[Any, Any]) -> None:
        for entry in defaults_of(tree):
            if isinstance(entry, Mapping):
                self.chosen |= {str(key).rpartition(" ")[2].lstrip("/").partition("@")[0] for key in entry}
        self.chosen |= {str(key) for key in tree}


def defaults_of(tree: Mapping[Any, Any]) -> list[Any]:
    """Return the defaults list of a file's keys."""
    defaults = tree.get("defaults")
    return defaults if isinstance(defaults, list) else []  # of anything else Hydra complains


def _shown(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else "null" if value is None else str(value)


def _entries(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the groups that a file's defaults choose from without `override`, with their choices."""
    for entry in defaults_of(tree):
        if isinstance(entry, Mapping) and not _overrides(entry):
            yield from ((str(key), value) for key, value in entry.items())


def _overrides(entry: object) -> bool:
    return isinstance(entry, Mapping) and any(str(key).startswith("override ") for key in entry)
