"""`goes_with: {task: classification, model: text_cnn}` in the YAML of a dataset or a task: what it brings along.

For Hydra these are overrides in a defaults list: of the groups that it names, a choice holds where neither the command
line nor an experiment nor a root file of one's own has chosen. What is no group, as `monitor`, is laid over train.yaml.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from bigmodel.errors import ConfigError

KEY = "goes_with"
_BRINGING = ("dataset", "task")  # groups that train.yaml lists after those they choose from


@dataclass
class Brought:
    """What the files of one composition bring along, in the order in which they were read."""

    groups: dict[str, Any] = field(default_factory=dict)  # of the root files, with their choices
    values: dict[str, Any] = field(default_factory=dict)  # keys of the built-in root file
    by: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # as ("dataset=trec", {"model": "text_cnn"})
    chosen: set[str] = field(default_factory=set)  # keys that an experiment or a root file of one's own sets

    def lines(self, typed: Collection[str]) -> list[str]:
        """Return a line for each file that brought something else than the defaults; `typed` are keys that had it."""
        decided, lines = {*typed, *self.chosen}, []
        for file, brought in self.by:
            held = {key: value for key, value in brought.items() if key not in decided}
            decided |= brought.keys()
            if any(value != self._default(key) for key, value in held.items()):
                shown = " ".join(f"{key}={'null' if value is None else value}" for key, value in held.items())
                lines.append(f"chosen by {file}: {shown}")
        return lines

    def _default(self, key: str) -> Any:
        return self.groups[key] if key in self.groups else self.values.get(key)

    def read_root(self, config: DictConfig, is_own: bool) -> None:
        """Note the groups of a root file. Of one's own, what it chooses is as good as typed."""
        self.groups |= dict(_entries(config))
        if is_own:
            defaults = config._get_node("defaults")
            for group, value in _entries(config):
                assert isinstance(defaults, ListConfig)
                defaults.append({f"override {group}": value})
            self._read_chosen(config)
        else:
            self.values |= _plain(config)

    def read_choice(self, file: Path, group: str, config: DictConfig) -> None:
        """Turn what a choice brings into overrides in its defaults list.

        Raises:
            ConfigError: it is no mapping, or the group cannot bring anything.
        """
        if group == "experiment":
            self._read_chosen(config)
        elif KEY in config:
            brought = _plain(config)[KEY]
            if group not in _BRINGING:
                raise ConfigError(f"{file}: {KEY}: only a dataset or a task may have it, not a {group}")
            if not isinstance(brought, Mapping):
                raise ConfigError(f"{file}: {KEY}: must hold choices and keys, as {{model: cnn}}, got {brought!r}")
            del config[KEY]
            self.by.append((f"{group}={file.stem}", {str(key): value for key, value in brought.items()}))
            defaults = _plain(config).get("defaults", [])
            overrides = [entry for entry in defaults if str(entry).startswith("{'override ")]
            others = [entry for entry in defaults if entry not in overrides]
            if any(key not in self.groups for key in brought):
                others += [*(() if "_self_" in others else ["_self_"]), f"/{group}/{file.stem}/{KEY}@_global_"]
            groups = [key for key in brought if key in self.groups]
            overrides += [{f"override /{key}@_global_.{key}": brought[key]} for key in groups]
            config.defaults = [*others, *overrides]

    def values_of(self, config: DictConfig) -> DictConfig:
        """Return what a choice brings that is no group, as a config of its own."""
        brought = _plain(config).get(KEY)
        return OmegaConf.create({key: value for key, value in (brought or {}).items() if key not in self.groups})

    def _read_chosen(self, config: DictConfig) -> None:
        defaults = config._get_node("defaults")
        entries = defaults if isinstance(defaults, ListConfig) else ()
        for entry in entries:
            for key in entry if isinstance(entry, DictConfig) else ():
                self.chosen.add(str(key).split()[-1].lstrip("/").partition("@")[0])
        self.chosen |= {str(key) for key in config}


def _entries(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the groups that a file's defaults choose from without `override`, with their choices."""
    for entry in _plain(config).get("defaults", ()):
        for key, value in entry.items() if isinstance(entry, Mapping) else ():
            if " " not in str(key):
                yield str(key), value


def _plain(config: DictConfig) -> dict[str, Any]:
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
