"""From a command line and directories of YAML to a config: all that touches Hydra, besides `config`.

Hydra reports the first mistake it meets. Here every override is tried by itself first, so that three mistakes give
three lines, and nothing is built or created before the whole is known to be right.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra import main as hydra_main
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.config import Config, problems_of
from bigmodel.errors import ConfigError
from bigmodel.hidden import is_secret
from bigmodel.strange_yaml import refuse_strange
from bigmodel.targets import nearest
from bigmodel.words import clip, first_line

_LONGEST_KEY = 255  # Hydra looks for a directory of that name
_LONGEST_WORD = 8192
_DEFAULT = "experiment=null"


@dataclass(frozen=True)
class Source:
    """Where YAML is looked for, first match first, the built-in directory last; and which file is the root."""

    directories: tuple[Path, ...]
    name: str


def compose(command: str, overrides: Sequence[str], source: Source, trust: Sequence[str] = ()) -> Config:
    """Compose and check the config of a command.

    Raises:
        ConfigError: a line for each mistake.
    """
    refuse_long(overrides)
    # Hydra cannot read that a group is null
    overrides = ["~loss" if text == "loss=null" else text for text in overrides if text.lstrip("+") != _DEFAULT]
    with _loader(source) as loader:
        problems: list[str] = []
        try:
            if any(map(_lists_choices, overrides)):  # of one group, which Hydra would merge and not refuse
                raise ValueError
            composed = hydra_compose(config_name=source.name, overrides=[*overrides])
        except (HydraException, OmegaConfBaseException, OSError, ValueError, RecursionError):
            # it stopped at the first mistake: now find them all
            problems, composed = _sift(loader, source, overrides)
    config = Config(composed, trust)
    problems += problems_of(config, command)
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return config


def _lists_choices(text: str) -> bool:
    """Whether it may be `model=[cnn,mlp]`; a list of numbers as in `model.hidden=[16]` need not be composed twice."""
    key, sign, _ = text.partition("=[")
    return bool(sign) and key != "listeners" and "." not in key.partition("@")[0]


def refuse_long(overrides: Sequence[str]) -> None:
    """ConfigError for words that Hydra would take minutes to read, as a megabyte of brackets."""
    long = [text for text in overrides if len(text) > _LONGEST_WORD]
    if long:
        raise ConfigError(*(f"{clip(text)}: {len(text)} characters; at most {_LONGEST_WORD}" for text in long))


def changed_by(stored: Config, overrides: Sequence[str], source: Source, trust: Sequence[str]) -> Config:
    """The stored config with overrides on top; a group override (`device=cpu`) replaces the whole group.

    Raises:
        ConfigError: a line for each mistake.
    """
    fresh = compose("train", overrides, source, trust).shareable()
    keys = [str(OverridesParser.create().parse_override(text).key_or_group) for text in overrides]
    for key in keys:
        if key == "experiment":
            raise ConfigError("resume: an experiment cannot be laid over a run; name the keys that change")
    facts = {key: _at(fresh, key) for key in keys}
    merged = OmegaConf.create(stored.shareable())  # what refers to the environment may be a secret, and stays so
    for key, value in facts.items():
        OmegaConf.update(merged, key, value, merge=False)
    return Config(merged, trust)


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def by_hydra(source: Source, words: Sequence[str], task: Callable[[DictConfig], None] = lambda _: None) -> None:
    """Let Hydra's own command line answer: sweeps, `--cfg job`, shell completion."""
    before, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        with _searching(source):
            hydra_main(config_path=str(source.directories[-1]), config_name=source.name, version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error)) from error
    finally:
        sys.argv = before


class _OwnDirectoriesFirst(SearchPathPlugin):
    """Puts the user's directories before the built-in ones, which Hydra's `--config-dir` would put last."""

    directories: ClassVar[tuple[Path, ...]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for path in reversed(self.directories):
            search_path.prepend("own", f"file://{path}")


@contextmanager
def _searching(source: Source) -> Iterator[None]:
    for directory in source.directories[:-1]:  # they may be a stranger's
        for file in (directory / f"{source.name}.yaml", *directory.glob("*/*.yaml")):
            if file.is_file():
                refuse_strange(file)
    GlobalHydra.instance().clear()
    Plugins.instance().register(_OwnDirectoriesFirst)
    _OwnDirectoriesFirst.directories = source.directories[:-1]
    try:
        yield
    finally:
        _OwnDirectoriesFirst.directories = ()


@contextmanager
def _loader(source: Source) -> Iterator[ConfigLoader]:
    with _searching(source), initialize_config_dir(config_dir=str(source.directories[-1]), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def _sift(loader: ConfigLoader, source: Source, overrides: Sequence[str]) -> tuple[list[str], DictConfig]:
    """Problems of single overrides, and the config composed of those that have none."""
    problems: list[str] = []
    groups: list[Override] = []
    values: list[Override] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            key, sign, _ = text.partition("=")
            shown = f"{key}=***" if sign and is_secret(key) else text
            problems.append(f"{clip(shown)}: cannot be read; write key=value, and quote as 'key=\"some text\"'")
            continue
        if not override.key_or_group:
            problems.append(f"{clip(text)}: cannot be read; write key=value")
        elif len(override.key_or_group) > _LONGEST_KEY:
            problems.append(f"{clip(override.key_or_group)}: no such setting; see --help")
        elif override.is_sweep_override():
            problems.append(f"{override.key_or_group}: several values need a sweep: add -m")
        elif override.is_delete() and isinstance(override.value(), list):
            problems.append(f"{override.key_or_group}: to delete it, write ~{override.key_or_group}")
        elif loader.get_group_options(override.key_or_group) and not _replaces_node(override):
            groups.append(override)
        else:
            values.append(override)
    good: list[str] = []
    for override in groups:
        problem = _group_problem(loader, override)
        problems += [problem] if problem else []
        good += [] if problem else [_text(override)]
    known = _composed(source.name, good, problems)
    paths = list(_paths(known))
    fitting = []
    for override in values:
        key = override.key_or_group
        if not override.is_add() and key not in paths:
            problems.append(f"{clip(key)}: no such setting; {_nearest_path(key, paths, loader)}")
        else:
            fitting.append(_text(override))
    return problems, _composed(source.name, [*good, *fitting], problems) if fitting else known


def _replaces_node(override: Override) -> bool:
    """Whether it is half of `~model '+model={_target_: ...}'`: no choice of the group, but a node in its place."""
    return override.is_delete() or isinstance(override.value(), dict)


def _text(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _group_problem(loader: ConfigLoader, override: Override) -> str | None:
    value = override.value()
    options = loader.get_group_options(override.key_or_group)
    if isinstance(value, list) and override.key_or_group != "listeners":
        return f"{override.key_or_group}: takes one choice, not a list"
    if value is None and override.key_or_group != "experiment" and not override.is_delete():
        return f"{override.key_or_group}: needs a choice; {nearest('null', options)}"
    for choice in value if isinstance(value, list) else [value]:
        if choice is not None and str(choice) not in options:
            return f"{override.key_or_group}: there is no '{clip(choice)}'; {nearest(str(choice), options)}"
    return None


def _nearest_path(key: str, paths: Sequence[str], loader: ConfigLoader) -> str:
    same_leaf = [path for path in paths if path.rpartition(".")[2] == key]
    if same_leaf:
        return f"did you mean {same_leaf[0]}?"
    parent, _, leaf = key.rpartition(".")
    siblings = [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == parent]
    siblings = [name for name in siblings if name != "_target_"]
    if parent and siblings:
        return nearest(leaf, siblings, parent + ".")
    hint = nearest(key, [*paths, *loader.list_groups("")])
    return hint if hint.startswith("did") else "see bigmodel-train --help"


def _composed(name: str, overrides: Sequence[str], problems: list[str]) -> DictConfig:
    try:
        return hydra_compose(config_name=name, overrides=[*overrides])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        line = first_line(error)
        if line not in problems:
            problems.append(line)
        raise ConfigError(*dict.fromkeys(problems)) from error


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, DictConfig) and not config._is_none() and not config._is_interpolation():
        for key in map(str, config):
            yield f"{prefix}{key}"
            yield from _paths(config._get_node(key), f"{prefix}{key}.")
