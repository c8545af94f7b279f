"""From a command line and directories of YAML to a config: all that touches Hydra, besides `config`.

Nothing is built or created before the whole is known to be right.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.config import Config, problems_of
from bigmodel.errors import ConfigError
from bigmodel.sift import sift
from bigmodel.strange_yaml import refuse_strange
from bigmodel.words import clip, first_line

_LONGEST_WORD = 8192
_DEFAULT = "experiment=null"
_WORD = re.compile(r"\w+")


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
    overrides = _without_null(overrides)
    with _loader(source) as loader:
        problems: list[str] = []
        try:
            if any(map(_lists_choices, overrides)) or not _heard_of(source, overrides):
                raise ValueError
            composed = hydra_compose(config_name=source.name, overrides=[*overrides])
        except (HydraException, OmegaConfBaseException, OSError, ValueError, RecursionError):
            # it stopped at the first mistake: now find them all
            problems, composed = sift(loader, source.name, overrides)
    config = Config(composed, trust)
    problems += problems_of(config, command)
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return config


def _without_null(words: Sequence[str]) -> list[str]:
    """The same for Hydra, which cannot read that a group is null."""
    return ["~loss" if text == "loss=null" else text for text in words if text.lstrip("+") != _DEFAULT]


def _heard_of(source: Source, overrides: Sequence[str]) -> bool:
    """Whether each key's last word is in some YAML. For one that is not, composing in vain would cost a quarter of the
    time until it is refused.
    """
    files = (
        file for directory in source.directories for level in ("", "*/") for file in directory.glob(f"{level}*.yaml")
    )
    with suppress(OSError, ValueError):
        words = set(_WORD.findall("\n".join(file.read_text(encoding="utf-8") for file in files)))
        keys = (text.partition("=")[0].partition("@")[0] for text in overrides)
        return all(words.issuperset(_WORD.findall(key)[-1:]) for key in keys)
    return True


def _lists_choices(text: str) -> bool:
    """Whether it may be `model=[cnn,mlp]`, which Hydra would merge and not refuse; a list of numbers as in
    `model.hidden=[16]` need not be composed twice.
    """
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
    before, sys.argv = sys.argv, [sys.argv[0], *_without_null(words)]
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
    before = GlobalHydra.instance().hydra  # of a program that uses Hydra itself
    GlobalHydra.instance().clear()
    Plugins.instance().register(_OwnDirectoriesFirst)
    _OwnDirectoriesFirst.directories = source.directories[:-1]
    try:
        yield
    finally:
        _OwnDirectoriesFirst.directories = ()
        GlobalHydra.instance().hydra = before


@contextmanager
def _loader(source: Source) -> Iterator[ConfigLoader]:
    with _searching(source), initialize_config_dir(config_dir=str(source.directories[-1]), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()
