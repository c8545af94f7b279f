"""From YAML files and the command line to one checked, read-only config. With `cli`, all that touches Hydra.

Hydra reports the first mistake it meets. Here every override is tried by itself first, so that three mistakes give
three lines, and nothing is built or created before the whole is known to be right.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra import main as hydra_main
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.errors import ConfigError
from bigmodel.targets import check, nearest

_ENVIRONMENT = "${oc.env:"
_OWN_ENVIRONMENT = "${oc.env:BIGMODEL_"
_VARIANTS_CHECKED = 50  # of a sweep, before its first job starts


@dataclass(frozen=True)
class Source:
    """Where YAML is looked for, first match first, and which file is the root."""

    directories: tuple[Path, ...]
    name: str


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

    def with_facts(self, facts: Mapping[str, Any]) -> Config:
        """A copy in which each dotted key has the given value; what refers to the key follows."""
        changed = self._composed.copy()
        for key, value in facts.items():
            OmegaConf.update(changed, key, value)
        return Config(changed, self.trust)

    def yaml(self) -> str:
        """The resolved config as YAML that runs again; secrets stay references to the environment."""
        return OmegaConf.to_yaml(OmegaConf.create(_without_secrets(self._composed)))


def compose(command: str, overrides: Sequence[str], source: Source, trust: Sequence[str] = ()) -> Config:
    """Compose and check the config of a command.

    Raises:
        ConfigError: a line for each mistake.
    """
    with _loader(source) as loader:
        problems, good = _sift(loader, source, overrides)
        composed = _composed(source.name, good, problems, search_path(source))
    config = Config(composed, trust)
    problems += _checked(config, command)
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return config


def check_sweep(command: str, overrides: Sequence[str], source: Source, trust: Sequence[str] = ()) -> None:
    """Check every value of a sweep by itself, with the first value of the others: mistakes show before a job starts.

    Raises:
        ConfigError: a line for each mistake.
    """
    problems: list[str] = []
    choices: list[list[str]] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            problems.append(_first_line(error))
            continue
        if not override.is_sweep_override():
            choices.append([text])
        elif override.is_discrete_sweep():
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
    first = [values[0] for values in choices]
    variants = [first] + [
        [*first[:i], value, *first[i + 1 :]] for i, values in enumerate(choices) for value in values[1:]
    ]
    for variant in variants[:_VARIANTS_CHECKED]:
        try:
            compose(command, variant, source, trust)
        except ConfigError as error:
            problems += error.lines
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def from_yaml(file: Path, trust: Sequence[str] = ()) -> Config:
    """A run's own `config.yaml`.

    Raises:
        ConfigError: the file is not YAML, or not a config of this version.
    """
    try:
        loaded = OmegaConf.load(file)
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file}: cannot be read as a config: {_first_line(error)}") from error
    except Exception as error:  # PyYAML's errors share no base with the above
        raise ConfigError(f"{file}: is not YAML: {_first_line(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{file}: is not a config: it holds no keys")
    config = Config(loaded, trust)
    problems = _checked(config, "train")
    if problems:
        raise ConfigError(*(f"{file}: {line}" for line in problems))
    return config


def changed_by(stored: Config, overrides: Sequence[str], source: Source, trust: Sequence[str]) -> Config:
    """The stored config with overrides on top; a group override (`device=cpu`) replaces the whole group.

    Raises:
        ConfigError: a line for each mistake.
    """
    fresh = compose("train", overrides, source, trust).plain()
    keys = [str(OverridesParser.create().parse_override(text).key_or_group) for text in overrides]
    for key in keys:
        if key == "experiment":
            raise ConfigError("resume: an experiment cannot be laid over a run; name the keys that change")
    facts = {key: OmegaConf.select(OmegaConf.create(fresh), key) for key in keys}
    merged = OmegaConf.create(stored.plain())
    for key, value in facts.items():
        OmegaConf.update(merged, key, value, merge=False)
    return Config(merged, trust)


def sweep(
    overrides: Sequence[str], source: Source, trust: Sequence[str], job: Callable[[Config, Path], None]
) -> None:
    """Run `job` for each combination of a sweep's values, through Hydra's launcher and sweeper."""

    def task(composed: DictConfig) -> None:
        hydra = HydraConfig.get()
        job(Config(composed, trust), Path(hydra.sweep.dir) / str(hydra.job.num))

    by_hydra(source, ["--multirun", *overrides], task)


def by_hydra(source: Source, words: Sequence[str], task: Callable[[DictConfig], None] = lambda _: None) -> None:
    """Let Hydra's own command line answer: sweeps, `--cfg job`, shell completion."""
    GlobalHydra.instance().clear()
    words = [word for word in words if not word.startswith(("--config-", "-cd", "-cp", "-cn"))]
    before, sys.argv = sys.argv, [sys.argv[0], *words, *search_path(source)]
    try:
        hydra_main(config_path=str(source.directories[0]), config_name=source.name, version_base="1.3")(task)()
    finally:
        sys.argv = before


def _checked(config: Config, command: str) -> list[str]:
    try:
        tree = config.plain()
    except (OmegaConfBaseException, HydraException) as error:
        return [_first_line(error)]
    return check(tree, f"bigmodel.settings.{command.capitalize()}", config.trust)


@contextmanager
def _loader(source: Source) -> Iterator[ConfigLoader]:
    GlobalHydra.instance().clear()
    first, *_ = source.directories
    with initialize_config_dir(config_dir=str(first), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def search_path(source: Source) -> list[str]:
    """The override that lets Hydra look in the further directories too."""
    rest = ",".join(f"'file://{path}'" for path in source.directories[1:])
    return [f"hydra.searchpath=[{rest}]"] if rest else []


def _sift(loader: ConfigLoader, source: Source, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Problems of single overrides, and the overrides that have none."""
    problems: list[str] = []
    groups: list[Override] = []
    values: list[Override] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            problems.append(f"{_clip(text)}: cannot be read; write key=value, and quote as 'key=\"some text\"'")
            continue
        if override.is_sweep_override():
            problems.append(f"{override.key_or_group}: several values need a sweep: add -m")
        elif loader.get_group_options(override.key_or_group):
            groups.append(override)
        else:
            values.append(override)
    good = []
    for override in groups:
        problem = _group_problem(loader, override)
        problems += [problem] if problem else []
        good += [] if problem else [_text(override)]
    known = _composed(source.name, good, problems, search_path(source))
    paths = list(_paths(known))
    for override in values:
        key = override.key_or_group
        if not override.is_add() and key not in paths:
            problems.append(f"{_clip(key)}: no such setting; {_nearest_path(key, paths, loader)}")
        else:
            good.append(_text(override))
    return problems, good


def _text(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _group_problem(loader: ConfigLoader, override: Override) -> str | None:
    value = override.value()
    options = loader.get_group_options(override.key_or_group)
    for choice in value if isinstance(value, list) else [value]:
        if choice is not None and str(choice) not in options:
            return f"{override.key_or_group}: there is no '{_clip(choice)}'; {nearest(str(choice), options)}"
    return None


def _nearest_path(key: str, paths: Sequence[str], loader: ConfigLoader) -> str:
    same_leaf = [path for path in paths if path.rpartition(".")[2] == key]
    if same_leaf:
        return f"did you mean {same_leaf[0]}?"
    parent, _, leaf = key.rpartition(".")
    siblings = [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == parent]
    if parent and siblings:
        return nearest(leaf, siblings, parent + ".")
    hint = nearest(key, [*paths, *loader.list_groups("")])
    return hint if hint.startswith("did") else "see bigmodel-train --help"


def _composed(
    name: str, overrides: Sequence[str], problems: list[str], extra: Sequence[str]
) -> DictConfig:
    try:
        return hydra_compose(config_name=name, overrides=[*overrides, *extra])
    except (HydraException, OmegaConfBaseException) as error:
        line = _first_line(error)
        if line not in problems:
            problems.append(line)
        raise ConfigError(*dict.fromkeys(problems)) from error


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, DictConfig) and not config._is_none() and not config._is_interpolation():
        for key in config:
            yield f"{prefix}{key}"
            yield from _paths(config._get_node(key), f"{prefix}{key}.")


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
        for key in node.keys() if isinstance(node, DictConfig) else range(len(node)):
            child = node._get_node(key)
            raw = child._value() if child is not None and not isinstance(child, list) else None
            if isinstance(raw, str) and _ENVIRONMENT in raw and _OWN_ENVIRONMENT not in raw:
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


def _first_line(error: BaseException) -> str:
    """The first line of an error and of its cause, if the cause says more."""
    lines = [str(error).strip().split("\n")[0]]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        lines.append(str(cause).strip().split("\n")[0])
    return _clip(": ".join(dict.fromkeys(lines)), 300)


def _clip(text: object, length: int = 100) -> str:
    shown = str(text).encode("unicode_escape").decode() if not str(text).isprintable() else str(text)
    return shown if len(shown) <= length else shown[: length - 3] + "..."
