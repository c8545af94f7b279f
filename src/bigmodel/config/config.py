"""One composed config: resolved, read-only, checked, and written so that it runs again."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig, Node, OmegaConf

from bigmodel.config.renamed import rename
from bigmodel.config.resolvers import (
    env_variables,
    is_plain,
    iter_leaves,
    resolve,
    resolve_but_secrets,
    trust_for_variables,
)
from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate
from bigmodel.quoting import escape_interpolation
from bigmodel.redaction import is_own, redact

_TIME_DEPENDENT = re.compile(r"\$\{\s*(hydra|now|oc\.env)\s*:")
_REFERS = re.compile(r"\$\{[^${}:]*\}|oc\.(select|dict)")


class Config:
    """A composed, read-only config. Interpolations stay unresolved, so that values from the data reach the model."""

    def __init__(self, composed: DictConfig, trust: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
        self._composed, renamed = _with_current_names(composed)
        self.trust = tuple(trust)
        self.notes = (*notes, *renamed)  # for the plan and the start of the run

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """All values resolved, read-only."""
        frozen: Mapping[str, Any] = _frozen(self.to_dict())
        return frozen

    def to_dict(self) -> dict[str, Any]:
        """All values resolved, as fresh dicts and lists."""
        return resolve(self._composed)

    @property
    def unresolved(self) -> DictConfig:
        """The config as composed, interpolations and all; not to be changed."""
        return self._composed

    def interpolated_from(self, key: str) -> str | None:
        """Return the key that a dotted key interpolates, as `dataset.input_shape`; None if it has its own value."""
        node: Any = self._composed
        for part in key.split("."):
            node = node._get_node(part) if isinstance(node, DictConfig) and part in node else None
        raw = node._value() if isinstance(node, Node) else None
        return raw[2:-1] if isinstance(raw, str) and raw.startswith("${") and ":" not in raw else None

    def has(self, key: str) -> bool:
        """Return whether a dotted key exists, whatever its value."""
        node: Any = self._composed
        for part in key.split("."):
            if not isinstance(node, DictConfig) or node._is_none() or part not in list(node.keys()):
                return False
            node = node._get_node(part)
        return True

    def redact(self, text: str) -> str:
        """Remove the environment values that this config refers to from a text to be saved, such as a traceback."""
        return redact(text, _env_names(self._composed))

    @property
    def trust_for_resume(self) -> tuple[str, ...]:
        """The words of `trust=` that a resume needs: packages, and the environment variables that are read."""
        return tuple(dict.fromkeys((*self.trust, *trust_for_variables([*_env_names(self._composed)]))))

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """Return a copy with these values by dotted key; interpolations of a changed key follow it."""
        changed = self._composed.copy()
        for key, value in values.items():
            OmegaConf.update(changed, key, value, force_add=True)  # `~key` has removed it
        return Config(changed, self.trust, self.notes)

    def with_notes(self, notes: Sequence[str]) -> Config:
        """Return the same config with more lines for the plan and the start of the run."""
        same = copy.copy(self)
        same.notes = (*self.notes, *notes)
        return same

    def to_yaml(self) -> str:
        """Return the resolved config as YAML that runs again; secrets stay references to the environment."""
        return OmegaConf.to_yaml(OmegaConf.create(self.redacted_dict(escape_interpolation)))

    def to_job_yaml(self) -> str:
        """Return resolved YAML for a job that has not opened its data; values from the dataset stay interpolations."""
        resolved = OmegaConf.create(self.redacted_dict(escape_interpolation))
        unknown = keys_from_data(self.to_dict())
        for path, raw in iter_leaves("", self._composed):
            if self.interpolated_from(path) in unknown:
                OmegaConf.update(resolved, path, raw)
        return OmegaConf.to_yaml(resolved)

    def to_template_yaml(self) -> str:
        """Return the config as YAML whose keys still refer to each other, so that other values can be laid over it.

        Values of Hydra, the clock and this package's environment variables are fixed; possible secrets stay references.

        Raises:
            ConfigError: a key takes its value from other keys through a resolver, and would not follow them.
        """
        copied = self._composed.copy()
        OmegaConf.set_struct(copied, False)
        copied.pop("hydra", None)
        problems = []
        for path, raw in [*iter_leaves("", copied)]:
            if not isinstance(raw, str) or (is_plain(raw) and not any(map(is_own, env_variables(raw)))):
                continue
            if _TIME_DEPENDENT.search(raw) or not _REFERS.search(raw):
                value = OmegaConf.select(self._composed, path)
                OmegaConf.update(copied, path, escape_interpolation(value) if isinstance(value, str) else value)
            else:
                problems.append(f"{path}: '{truncate(raw)}' would not follow what is searched; write a plain ${{KEY}}")
        if problems:
            raise ConfigError(*problems)
        return OmegaConf.to_yaml(copied)

    def redacted_dict(self, spell: Callable[[str], str] = str) -> dict[str, Any]:
        """Return all values resolved except references to the environment, which may be secrets: safe to write to disk.

        `spell` writes texts, as `escape_interpolation` does for what OmegaConf reads again.
        """
        shareable: dict[str, Any] = resolve_but_secrets(self._composed, spell)
        return shareable


def _with_current_names(composed: DictConfig) -> tuple[DictConfig, list[str]]:
    """Return a copy under today's names if the config has older ones, else the config, and a line for each old key."""
    tree: Any = OmegaConf.to_container(composed, resolve=False)
    current, lines = rename(tree)
    if current == tree:
        return composed, lines
    changed = composed.copy()
    OmegaConf.set_struct(changed, False)
    for group, node in current.items():
        if node != tree[group]:
            changed[group] = node
    return changed, lines


def _env_names(composed: DictConfig) -> Iterator[str]:
    """Return the environment variables that a config refers to, except this package's."""
    for _, raw in iter_leaves("", composed):
        for name in env_variables(raw) if isinstance(raw, str) else ():
            if not is_own(name):
                yield name


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def keys_from_data(tree: Mapping[str, Any]) -> set[str]:
    """Return the dataset's null keys: their values come from the data, so a reference to one is no mistake yet."""
    dataset = tree.get("dataset")
    return (
        {f"dataset.{key}" for key, value in dataset.items() if value is None} if isinstance(dataset, Mapping) else set()
    )
