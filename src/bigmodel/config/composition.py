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
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bigmodel.config import override_parser as grammar
from bigmodel.config.config import Config
from bigmodel.config.goes_with import Brought
from bigmodel.config.hydra_keys import check_hydra_keys, check_hydra_node, split_overrides
from bigmodel.config.overrides import diagnose_overrides, old_keys
from bigmodel.config.own_yaml import OwnSource
from bigmodel.config.validation import check_composed
from bigmodel.errors import ConfigError
from bigmodel.formatting import first_line, truncate
from bigmodel.quoting import escape_interpolation

_LONGEST_WORD = 8192
_LARGEST_SEARCH = 4 << 20  # bytes of YAML that are looked through for a key
_DEFAULT = "experiment=null"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class ConfigSource:
    """The directories that YAML is looked for in, the built-in one last, and the name of the root file."""

    directories: tuple[Path, ...]
    name: str


def compose(
    command: str, overrides: Sequence[str], source: ConfigSource, trust: Sequence[str] = (), multirun: bool = False
) -> Config:
    """Compose and check the config of a command, or with `multirun` of one job of a sweep.

    Raises:
        ConfigError: a line for each mistake.
    """
    return compose_with_hydra(command, overrides, source, trust, multirun)[0]


def compose_with_hydra(
    command: str, overrides: Sequence[str], source: ConfigSource, trust: Sequence[str] = (), multirun: bool = False
) -> tuple[Config, dict[str, Any]]:
    """As `compose`, with the `hydra` node that a sweep goes by; empty where it cannot be had.

    Raises:
        ConfigError: a line for each mistake.
    """
    reject_long_overrides(overrides)
    own, others, problems = split_overrides(_without_null(overrides), multirun)
    hydra: dict[str, Any] = {}
    with config_loader(source, trust) as loader:
        try:
            if problems or any(map(_may_be_choice_list, own)) or not _keys_exist_in_yaml(source, own):
                raise ValueError
            composed, hydra = _composed(source, [*own, *others], multirun)
            problems += old_keys(composed, own)
            problems += check_hydra_node(hydra, _standard(loader, hydra), multirun)
            problems += [] if multirun else check_hydra_keys([f"{group}=" for group in OwnSource.chosen], multirun)
        except (HydraException, OmegaConfBaseException, OSError, ValueError, RecursionError):
            # it stopped at the first mistake: now find them all
            problems, composed = diagnose_overrides(loader, source.name, own, problems)
    config, wrong = check_composed(composed, command, trust)
    problems += wrong
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return config.with_notes(OwnSource.brought.lines(_named(own))), hydra


def _composed(source: ConfigSource, overrides: Sequence[str], multirun: bool) -> tuple[DictConfig, dict[str, Any]]:
    """The config, and its `hydra` node apart. What an experiment chooses of Hydra's groups, a sweep is given as a word:
    by itself the primary config would have the last say.
    """
    OwnSource.chosen, OwnSource.brought = {}, Brought()
    try:
        composed = hydra_compose(config_name=source.name, overrides=[*overrides], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        if not multirun or not chosen_of_hydra(overrides):
            raise
        composed = None
    if multirun and (chosen := chosen_of_hydra(overrides)):
        words = [*overrides, *chosen]
        composed = hydra_compose(config_name=source.name, overrides=words, return_hydra_config=True)
    assert isinstance(composed, DictConfig)
    hydra = OmegaConf.to_container(composed.hydra, resolve=False, enum_to_str=True)
    assert isinstance(hydra, dict)
    with open_dict(composed):
        del composed["hydra"]
    return composed, {str(key): value for key, value in hydra.items()}


def chosen_of_hydra(overrides: Sequence[str]) -> list[str]:
    """What the files that were read last choose of Hydra's groups and the command line does not, as words."""
    return [f"{group}={choice}" for group, choice in OwnSource.chosen.items() if group not in _named(overrides)]


def _named(overrides: Sequence[str]) -> set[str]:
    """Return the groups and keys that words name."""
    return {word.lstrip("+~").partition("=")[0].partition("@")[0] for word in overrides}


def _standard(loader: ConfigLoader, hydra: dict[str, Any]) -> dict[str, Any]:
    """Return Hydra's groups as their files have them."""
    choices, found = hydra["runtime"]["choices"], {}
    for name in ("launcher", "sweeper", "job_logging", "hydra_logging", "help", "hydra_help"):
        loaded = loader.repository.load_config(f"hydra/{name}/{choices.get(f'hydra/{name}')}")  # type: ignore[attr-defined]
        if loaded is not None:
            content = OmegaConf.to_container(loaded.config, resolve=False)
            assert isinstance(content, dict)
            found[name] = {key: value for key, value in content.items() if key != "defaults"}
    return found


def _without_null(words: Sequence[str]) -> list[str]:
    """The same for Hydra, which cannot read that a group is null."""
    return ["~loss" if text == "loss=null" else text for text in words if text.lstrip("+") != _DEFAULT]


def _keys_exist_in_yaml(source: ConfigSource, overrides: Sequence[str]) -> bool:
    """Whether each key's last word is in some YAML. For one that is not, composing in vain would cost a quarter of the
    time until it is refused.
    """
    every = (
        file for directory in source.directories for level in ("", "*/") for file in directory.glob(f"{level}*.yaml")
    )
    with suppress(OSError, ValueError):
        files = [file for file in every if file.is_file()]  # a pipe would be waited for
        if sum(file.stat().st_size for file in files) > _LARGEST_SEARCH:
            return True
        words = set(_WORD.findall("\n".join(file.read_text(encoding="utf-8") for file in files)))
        keys = (text.partition("=")[0].partition("@")[0] for text in overrides)
        return all(words.issuperset(_WORD.findall(key)[-1:]) for key in keys)
    return True


def _may_be_choice_list(text: str) -> bool:
    """Whether it may be `model=[cnn,mlp]`, which Hydra would merge and not refuse; a list of numbers as in
    `model.hidden=[16]` need not be composed twice.
    """
    key, sign, _ = text.partition("=[")
    return bool(sign) and key != "listeners" and "." not in key.partition("@")[0]


def reject_long_overrides(overrides: Sequence[str]) -> None:
    """Raise ConfigError for overrides that Hydra would take minutes to parse, as a megabyte of brackets."""
    long = [text for text in overrides if len(text) > _LONGEST_WORD]
    if long:
        raise ConfigError(*(f"{truncate(text)}: {len(text)} characters; at most {_LONGEST_WORD}" for text in long))


def apply_overrides(stored: Config, overrides: Sequence[str], source: ConfigSource) -> Config:
    """Apply overrides to a stored config, with its trust; a group override (`device=cpu`) replaces the whole group.

    Raises:
        ConfigError: a line for each mistake.
    """
    reject_long_overrides(overrides)
    with config_loader(source, stored.trust) as loader:
        parsed = [grammar.parse_override(text, loader) for text in overrides]
        own = [one for one in parsed if _is_own_value(one, stored, loader)]  # the defaults may be of other groups
    values = {str(one.key_or_group): one.value() for one in own}
    others = [text for text, one in zip(overrides, parsed, strict=True) if one not in own]
    fresh = compose("train", others, source, stored.trust).redacted_dict(escape_interpolation) if others else {}
    for one in parsed:
        if one.key_or_group == "experiment":
            raise ConfigError("resume: an experiment cannot be laid over a run; name the keys that change")
        if one not in own:
            value: Any = fresh
            for part in str(one.key_or_group).split("."):
                value = value.get(part) if isinstance(value, dict) else None
            values[str(one.key_or_group)] = value
    # what refers to the environment may be a secret, and stays so
    merged = OmegaConf.create(stored.redacted_dict(escape_interpolation))
    for key, value in values.items():
        OmegaConf.update(merged, key, value, merge=False)
    config, problems = check_composed(merged, "train", stored.trust)
    if problems:
        raise ConfigError(*problems)
    return config


def _is_own_value(override: Override, stored: Config, loader: ConfigLoader) -> bool:
    """Return whether an override sets a key of a stored config, and does not choose from a group."""
    key = str(override.key_or_group)
    plain = not (override.is_sweep_override() or override.is_delete() or override.is_add() or override.package)
    return plain and not loader.get_group_options(key) and stored.has(key)


def run_hydra_cli(
    source: ConfigSource,
    words: Sequence[str],
    trust: Sequence[str] = (),
    task: Callable[[DictConfig], None] = lambda _: None,
) -> None:
    """Run Hydra's own command line: sweeps, `--cfg job`, shell completion."""
    before, sys.argv = sys.argv, [sys.argv[0], *_without_null(words)]
    try:
        with _searching(source, trust):
            hydra_main(config_path=str(source.directories[-1]), config_name=source.name, version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error)) from error
    except RecursionError as error:
        raise ConfigError(OwnSource.circle()) from error
    finally:
        sys.argv = before


class _OwnDirectoriesFirst(SearchPathPlugin):
    """Puts the user's directories before the built-in one, which Hydra's `--config-dir` would put last, and has all of
    them read by `OwnSource`.
    """

    directories: ClassVar[tuple[Path, ...]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for path in reversed(self.directories):
            search_path.prepend("own", f"own://{path}")


@contextmanager
def _searching(source: ConfigSource, trust: Sequence[str]) -> Iterator[None]:
    before = GlobalHydra.instance().hydra  # of a program that uses Hydra itself
    GlobalHydra.instance().clear()
    Plugins.instance().register(_OwnDirectoriesFirst)
    Plugins.instance().register(OwnSource)
    _OwnDirectoriesFirst.directories = source.directories
    OwnSource.trust = tuple(trust)
    OwnSource.brought = Brought()
    try:
        yield
    finally:
        _OwnDirectoriesFirst.directories = ()
        GlobalHydra.instance().hydra = before
        OwnSource.trust = ()


@contextmanager
def config_loader(source: ConfigSource, trust: Sequence[str] = ()) -> Iterator[ConfigLoader]:
    """Use Hydra's loader for these directories inside the context."""
    directory = str(source.directories[-1])
    with _searching(source, trust), initialize_config_dir(config_dir=directory, version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def refuse_hydra_keys(source: ConfigSource, overrides: Sequence[str], trust: Sequence[str]) -> None:
    """ConfigError for a `hydra` node that would run code or be ignored, before Hydra's command line answers by itself.
    All other mistakes are left to it.
    """
    with config_loader(source, trust) as loader:
        try:
            _, hydra = _composed(source, _without_null(overrides), multirun=True)
        except (HydraException, OmegaConfBaseException, OSError, ValueError, RecursionError):
            return
        problems = [*check_hydra_node(hydra, _standard(loader, hydra), multirun=True)]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
