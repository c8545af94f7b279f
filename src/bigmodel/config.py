"""One composed config: resolved, read-only, checked, and written so that it runs again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.errors import ConfigError
from bigmodel.hidden import hidden, is_secret
from bigmodel.run_directory import intact
from bigmodel.strange_yaml import refuse_strange
from bigmodel.targets import check
from bigmodel.words import first_line

_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w*)")  # the name is empty where it is itself put together
_OF_THE_MOMENT = re.compile(r"\$\{\s*(hydra|now|oc\.env)\s*:")
_MISSING = re.compile(r"Interpolation key '([\w.]+)' not found")
_OWN_ENVIRONMENT = "BIGMODEL_"
STAND_IN_LR = 1e-3  # where `optim.lr` is still to be found: a rate that every optimizer takes


class Config:
    """A composed config. Interpolations stay alive inside, so that a fact the data tells reaches the model."""

    def __init__(self, composed: DictConfig, trust: Sequence[str] = ()) -> None:
        self._composed = composed
        self.trust = tuple(trust)

    @cached_property
    def tree(self) -> Mapping[str, Any]:
        """All values resolved, read-only."""
        frozen: Mapping[str, Any] = _frozen(self.plain())
        return frozen

    def plain(self) -> dict[str, Any]:
        """All values resolved, as fresh dicts and lists."""
        return _resolved(self._composed)

    def reference(self, key: str) -> str | None:
        """The key that a dotted key's value is taken from, as `dataset.input_shape`; None if it has one of its own."""
        node: Any = self._composed
        for part in key.split("."):
            node = node._get_node(part) if isinstance(node, DictConfig) and part in node else None
        raw = node._value() if isinstance(node, Node) else None
        return raw[2:-1] if isinstance(raw, str) and raw.startswith("${") and ":" not in raw else None

    def hidden(self, text: str) -> str:
        """The text without what the environment holds for this config: for tracebacks and other words to be kept."""
        return hidden(text, _names(self._composed))

    def with_facts(self, facts: Mapping[str, Any]) -> Config:
        """A copy in which each dotted key has the given value; what refers to the key follows."""
        changed = self._composed.copy()
        for key, value in facts.items():
            OmegaConf.update(changed, key, value)
        return Config(changed, self.trust)

    def yaml(self) -> str:
        """The resolved config as YAML that runs again; secrets stay references to the environment."""
        return OmegaConf.to_yaml(OmegaConf.create(self.shareable()))

    def job_yaml(self) -> str:
        """The same of a run whose data is still to be read: what that will tell stays a reference to it."""
        resolved = OmegaConf.create(self.shareable())
        untold = _untold(self.plain())
        for path, raw in _leaves("", self._composed):
            if self.reference(path) in untold:
                OmegaConf.update(resolved, path, raw)
        return OmegaConf.to_yaml(resolved)

    def open_yaml(self) -> str:
        """The config as YAML in which keys still refer to each other, so that other values can be laid over it.

        What Hydra, the clock or our own environment say is fixed; what may be a secret stays a reference.
        """
        copied = self._composed.copy()
        OmegaConf.set_struct(copied, False)
        copied.pop("hydra", None)
        for path, raw in [*_leaves("", copied)]:
            if (
                isinstance(raw, str)
                and _OF_THE_MOMENT.search(raw)
                and not any(map(_foreign, _ENVIRONMENT.findall(raw)))
            ):
                OmegaConf.update(copied, path, OmegaConf.select(self._composed, path))
        return OmegaConf.to_yaml(copied)

    def shareable(self) -> dict[str, Any]:
        """All values resolved but references to the environment, which may be secrets: what may be written to disk."""
        shareable: dict[str, Any] = _without_secrets(self._composed)
        return shareable


def from_yaml(file: Path, trust: Sequence[str] = ()) -> Config:
    """A run's own `config.yaml`.

    Raises:
        ConfigError: the file is not YAML, or not a config of this version.
    """
    refuse_strange(file)
    try:
        loaded = OmegaConf.load(file)
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file}: cannot be read as a config: {first_line(error)}") from error
    except Exception as error:  # PyYAML's errors share no base with the above
        raise ConfigError(f"{file}: is not YAML: {first_line(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{file}: is not a config: it holds no keys")
    config = Config(loaded, trust)
    problems = problems_of(config, "train")
    if problems:
        raise ConfigError(*(f"{file}: {line}" for line in problems))
    return config


def from_frozen(file: Path, trust: Sequence[str] = ()) -> Config:
    """A config that a sweep has written, as `from_yaml`.

    Raises:
        ConfigError: the file is not as it was written, or is no config.
    """
    config = from_yaml(file, trust)
    if intact(file.read_text(encoding="utf-8")) is False:
        raise ConfigError(
            f"{file}: is not as the sweep wrote it; begin a new sweep, or, if you changed it on purpose, remove its "
            "last line"
        )
    return config


def problems_of(config: Config, command: str) -> list[str]:
    """Everything wrong with a composed config, a line each."""
    try:
        tree = config.plain()
        tree = config.with_facts(_stand_ins(tree)).plain()
    except (OmegaConfBaseException, HydraException) as error:
        key = getattr(error, "full_key", None)
        if key and (missing := _MISSING.match(first_line(error))):
            group, _, name = missing[1].rpartition(".")
            if not group:
                return [f"{key}: takes {name}, and none is chosen; set {name}=..."]
            return [f"{key}: takes {name} from the chosen {group}, which has none; the two do not go together"]
        return [f"{key}: {first_line(error)}" if key else first_line(error)]
    plain = [f"{path}: a secret would be written down; give it as '${{oc.env:NAME}}'" for path in _secrets(config)]
    told = {line.partition(": ")[0] for line in plain}
    problems = [
        config.hidden(line)
        for line in check(tree, f"bigmodel.settings.{command.capitalize()}", config.trust)
        if line.partition(": ")[0] not in told
    ]
    problems += plain
    keys = {line.partition(": ")[0] for line in problems} | _untold(tree)
    return [line for line in problems if config.reference(line.partition(": ")[0]) not in keys]


def found_later(tree: Mapping[str, Any]) -> list[str]:
    """Which of `batch_size` and `optim.lr` are `auto`: `finders` puts numbers in their place before a run starts."""
    optim = tree.get("optim")
    rate = optim.get("lr") if isinstance(optim, Mapping) else None
    return [key for key, value in (("batch_size", tree.get("batch_size")), ("optim.lr", rate)) if value == "auto"]


def _stand_ins(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers for what is not known yet, so that all the rest can be checked."""
    numbers = {"batch_size": 1, "optim.lr": STAND_IN_LR}
    return {key: numbers[key] for key in found_later(tree)}


def _untold(tree: Mapping[str, Any]) -> set[str]:
    """Keys of the dataset that are null: the data will tell, and what refers to them is no mistake yet."""
    dataset = tree.get("dataset")
    return (
        {f"dataset.{key}" for key, value in dataset.items() if value is None} if isinstance(dataset, Mapping) else set()
    )


def _secrets(config: Config) -> Iterator[str]:
    """Keys that hold a secret in plain words."""
    for path, raw in _leaves("", config._composed):
        if is_secret(path) and isinstance(raw, str) and raw not in ("", "???") and not _ENVIRONMENT.search(raw):
            yield path


def _names(composed: DictConfig) -> Iterator[str]:
    """Variables of the environment that a config refers to, but for our own."""
    for _, raw in _leaves("", composed):
        for name in _ENVIRONMENT.findall(raw) if isinstance(raw, str) else ():
            if name and _foreign(name):
                yield name


def _foreign(name: str) -> bool:
    return not name.startswith(_OWN_ENVIRONMENT)


def _leaves(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values as they are written, interpolations included."""
    if isinstance(node, (DictConfig, ListConfig)) and not node._is_none() and not node._is_interpolation():
        keys: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
        for key in keys:
            yield from _leaves(f"{path}.{key}" if path else str(key), node._get_node(key))
    elif isinstance(node, Node):
        yield path, node._value()


def _resolved(composed: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def _without_secrets(composed: DictConfig) -> Any:
    """Resolve everything but references to the environment, wherever an interpolation carries them."""
    masked = composed.copy()
    held: dict[str, str] = {}

    def mask(node: Any) -> None:
        if not isinstance(node, (DictConfig, ListConfig)) or node._is_none() or node._is_interpolation():
            return
        keys: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
        for key in keys:
            child = node._get_node(key)
            raw = child._value() if child is not None and not isinstance(child, list) else None
            if isinstance(raw, str) and any(_foreign(name) for name in _ENVIRONMENT.findall(raw)):
                held[f"<<{len(held)}>>"] = raw
                node[key] = f"<<{len(held) - 1}>>"
            else:
                mask(child)

    OmegaConf.set_struct(masked, False)
    mask(masked)

    def unmask(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: unmask(item) for key, item in value.items()}
        if isinstance(value, list):
            return [unmask(item) for item in value]
        return held.get(value, value) if isinstance(value, str) else value

    return unmask(_resolved(masked))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
