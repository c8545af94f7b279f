"""One composed config: resolved, read-only, checked, and written so that it runs again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.conf_directory import fitting_models
from bigmodel.durable import read_text
from bigmodel.errors import ConfigError
from bigmodel.hidden import hidden, is_own, is_secret
from bigmodel.own_yaml import read_yaml
from bigmodel.quoting import escaped
from bigmodel.resolvers import grants, is_plain, leaves, reading, refusal, resolved, variables, without_secrets
from bigmodel.run_directory import intact
from bigmodel.targets import check, exact, wanted
from bigmodel.words import clip, first_line

_OF_THE_MOMENT = re.compile(r"\$\{\s*(hydra|now|oc\.env)\s*:")
_REFERS = re.compile(r"\$\{[^${}:]*\}|oc\.(select|dict)")
_UNSET = re.compile(r".*Environment variable '(.*)' not found", re.DOTALL)
_MISSING = re.compile(r"Interpolation key '([\w.]+)' not found")
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
        return resolved(self._composed)

    def reference(self, key: str) -> str | None:
        """The key that a dotted key's value is taken from, as `dataset.input_shape`; None if it has one of its own."""
        node: Any = self._composed
        for part in key.split("."):
            node = node._get_node(part) if isinstance(node, DictConfig) and part in node else None
        raw = node._value() if isinstance(node, Node) else None
        return raw[2:-1] if isinstance(raw, str) and raw.startswith("${") and ":" not in raw else None

    def has(self, key: str) -> bool:
        """Whether a dotted key is there, whatever its value."""
        node: Any = self._composed
        for part in key.split("."):
            if not isinstance(node, DictConfig) or node._is_none() or part not in list(node.keys()):
                return False
            node = node._get_node(part)
        return True

    def hidden(self, text: str) -> str:
        """The text without what the environment holds for this config: for tracebacks and other words to be kept."""
        return hidden(text, _names(self._composed))

    @property
    def grants(self) -> tuple[str, ...]:
        """The words of `trust=` that a resume needs: packages, and the variables of the environment that are read."""
        return tuple(dict.fromkeys((*self.trust, *grants([*_names(self._composed)]))))

    def with_facts(self, facts: Mapping[str, Any]) -> Config:
        """A copy in which each dotted key has the given value; what refers to the key follows."""
        changed = self._composed.copy()
        for key, value in facts.items():
            OmegaConf.update(changed, key, value)
        return Config(changed, self.trust)

    def yaml(self) -> str:
        """The resolved config as YAML that runs again; secrets stay references to the environment."""
        return OmegaConf.to_yaml(OmegaConf.create(self.shareable(escaped)))

    def job_yaml(self) -> str:
        """The same of a run whose data is still to be read: what that will tell stays a reference to it."""
        resolved = OmegaConf.create(self.shareable(escaped))
        untold = _untold(self.plain())
        for path, raw in leaves("", self._composed):
            if self.reference(path) in untold:
                OmegaConf.update(resolved, path, raw)
        return OmegaConf.to_yaml(resolved)

    def open_yaml(self) -> str:
        """The config as YAML in which keys still refer to each other, so that other values can be laid over it.

        What Hydra, the clock or our own environment say is fixed; what may be a secret stays a reference.

        Raises:
            ConfigError: a key takes its value from other keys through a resolver, and would not follow them.
        """
        copied = self._composed.copy()
        OmegaConf.set_struct(copied, False)
        copied.pop("hydra", None)
        problems = []
        for path, raw in [*leaves("", copied)]:
            if not isinstance(raw, str) or (is_plain(raw) and not any(map(is_own, variables(raw)))):
                continue
            if _OF_THE_MOMENT.search(raw) or not _REFERS.search(raw):
                value = OmegaConf.select(self._composed, path)
                OmegaConf.update(copied, path, escaped(value) if isinstance(value, str) else value)
            else:
                problems.append(f"{path}: '{clip(raw)}' would not follow what is searched; write a plain ${{KEY}}")
        if problems:
            raise ConfigError(*problems)
        return OmegaConf.to_yaml(copied)

    def shareable(self, spell: Callable[[str], str] = str) -> dict[str, Any]:
        """All values resolved but references to the environment, which may be secrets: what may be written to disk.

        `spell` writes texts, as `escaped` does for what OmegaConf reads again.
        """
        shareable: dict[str, Any] = without_secrets(self._composed, spell)
        return shareable


def from_yaml(file: Path, trust: Sequence[str] = ()) -> Config:
    """A run's own `config.yaml`. It may be a stranger's: see `refuse_resolvers`.

    Raises:
        ConfigError: the file is not YAML, or not a config of this version.
    """
    loaded = read_yaml(file)
    if not loaded:
        raise ConfigError(f"{file}: is not a config: it holds no keys")
    refuse_resolvers(file, loaded, trust)
    config, problems = checked(loaded, "train", trust)
    if problems:
        raise ConfigError(*(f"{file}: {line}" for line in problems))
    return config


def from_frozen(file: Path, trust: Sequence[str] = ()) -> Config:
    """A config that a sweep has written, as `from_yaml`.

    Raises:
        ConfigError: the file is not as it was written, or is no config.
    """
    config = from_yaml(file, trust)
    if intact(read_text(file)) is False:
        raise ConfigError(
            f"{file}: is not as the sweep wrote it; begin a new sweep, or, if you changed it on purpose, remove its "
            "last line"
        )
    return config


def refuse_resolvers(file: Path, config: DictConfig, trust: Sequence[str]) -> None:
    """Hold a config that came with a run, maybe from a stranger, to plain references and to what `trust` grants.

    Raises:
        ConfigError: a line for each key that would read something else.
    """
    problems = [f"{file}: hydra: no such setting"] if "hydra" in config else []
    for path, raw in leaves("", config):
        if isinstance(raw, str) and "${" in raw and (why := refusal(raw, trust)):
            problems.append(f"{file}: {path}: {why}")
    if problems:
        raise ConfigError(*problems)


def checked(composed: DictConfig, command: str, trust: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """The config of a command, and everything wrong with it, a line each.

    A text from a resolver becomes the number that its key asks for, where it says exactly that: `seed=${oc.env:SEED}`.
    A number is no secret, and is written as it is. A text from the environment stays a reference, so it must be one.
    """
    config, problems = Config(composed, trust), []
    with_resolvers = [(path, raw) for path, raw in leaves("", composed) if isinstance(raw, str) and "${" in raw]
    baked: dict[str, Any] = {}
    tree: dict[str, Any] | None = None
    for path, raw in with_resolvers:
        try:
            with reading() as names:
                value = OmegaConf.select(composed, path)
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            tree = config.plain() if tree is None else tree
            kind = wanted(tree, f"bigmodel.settings.{command.capitalize()}", path, trust)
        except (OmegaConfBaseException, HydraException, ImportError, ValueError, RecursionError):
            continue  # told below
        number = exact(value, kind) if isinstance(value, str) and ":" in raw else value
        if number is not value or (names and not is_plain(raw) and not _has_text(value)):
            baked[path] = number
        elif names and not is_plain(raw):
            problems.append(f"{path}: takes text from the environment in a roundabout way; write '${{oc.env:NAME}}'")
    if problems:
        return config, problems
    config = config.with_facts(baked) if baked else config
    return config, problems_of(config, command)


def _has_text(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return any(map(_has_text, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (str, bytes))


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
            fitting = fitting_models(_nodes(config._composed)) if group == "dataset" else ""
            hint = f"; {fitting}" if fitting else ""
            return [f"{key}: takes {name} from the chosen {group}, which has none; the two do not go together{hint}"]
        if unset := _UNSET.match(str(error)):
            said = (
                f"the environment has no {clip(unset[1])}; set it, or give a default: ${{oc.env:{clip(unset[1])},...}}"
            )
            return [f"{key}: {said}" if key else said]
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
    for path, raw in leaves("", config._composed):
        if is_secret(path) and isinstance(raw, str) and raw not in ("", "???") and "oc.env" not in raw:
            yield path


def _nodes(composed: DictConfig) -> dict[str, Any]:
    """The groups by name, with their keys and what refers to other keys left as it is."""
    container = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(container, dict)
    return {str(name): node for name, node in container.items()}


def _names(composed: DictConfig) -> Iterator[str]:
    """Variables of the environment that a config refers to, but for our own."""
    for _, raw in leaves("", composed):
        for name in variables(raw) if isinstance(raw, str) else ():
            if not is_own(name):
                yield name


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
