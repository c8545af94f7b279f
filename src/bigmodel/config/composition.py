"""From the words of a command line and directories of YAML to a config: all that touches Hydra, besides `config`.

Nothing is built or created before the whole is known to be right.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra import main as hydra_main
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bigmodel.config.config import Config
from bigmodel.config.goes_with import Brought
from bigmodel.config.hydra_keys import check_hydra_keys, check_hydra_node
from bigmodel.config.location import ConfigSource
from bigmodel.config.override_text import describe_repeated, override_key
from bigmodel.config.overrides import diagnose_overrides
from bigmodel.config.own_yaml import OwnSource
from bigmodel.config.renamed import old_keys
from bigmodel.config.validation import check_composed
from bigmodel.config.weights_keys import with_weights_keys
from bigmodel.errors import ConfigError
from bigmodel.formatting import first_line

_CANNOT_COMPOSE = (HydraException, OmegaConfBaseException, OSError, ValueError, RecursionError)
_LARGEST_SEARCH = 4 << 20  # bytes of YAML that are looked through for a key
_DEFAULT = "experiment=null"
_WORD = re.compile(r"\w+")


def compose(
    command: str, overrides: Sequence[str], source: ConfigSource, trust: Sequence[str] = (), multirun: bool = False
) -> Config:
    """Compose and check the config of a command, or with `multirun` of one job of a sweep.

    Raises:
        ConfigError: a line for each mistake.
    """
    return compose_with_hydra(command, overrides, source, trust, multirun)[0]


def compose_with_hydra(
    command: str,
    overrides: Sequence[str],
    source: ConfigSource,
    trust: Sequence[str] = (),
    multirun: bool = False,
    hydra_words: Sequence[str] = (),
) -> tuple[Config, dict[str, Any]]:
    """As `compose`, with the `hydra` node that a sweep goes by; empty where it cannot be had.

    `hydra_words` are overrides of Hydra's own keys.

    Raises:
        ConfigError: a line for each mistake.
    """
    overrides = _without_null(overrides)
    in_vain = any(map(_may_be_choice_list, overrides)) or not _keys_exist_in_yaml(source, overrides)
    problems: list[str] = []
    hydra: dict[str, Any] = {}
    with config_loader(source, trust) as loader:
        try:
            if in_vain:
                raise ValueError
            composed, hydra = _compose_with_hydra(source.name, [*overrides, *hydra_words], multirun)
            problems += old_keys(composed, map(override_key, overrides))
            problems += check_hydra_node(hydra, _standard(loader, hydra), multirun)
            problems += [] if multirun else check_hydra_keys([f"{group}=" for group in OwnSource.chosen], multirun)
        except _CANNOT_COMPOSE:  # it stopped at the first mistake: now find them all
            problems, composed = diagnose_overrides(loader, source.name, overrides, problems)
    config, wrong = check_composed(composed, command, trust)
    problems += wrong
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    named = {*map(override_key, overrides)}
    config = config.with_notes([*describe_repeated(overrides), *OwnSource.brought.lines(named)])
    return (with_weights_keys(config, named) if command == "train" else config), hydra


def _compose_with_hydra(name: str, overrides: Sequence[str], multirun: bool) -> tuple[DictConfig, dict[str, Any]]:
    """Compose the config; return it without its `hydra` node, and that node.

    In a sweep an experiment's choices from Hydra's groups become overrides: the primary config would override them.

    Raises one of `_CANNOT_COMPOSE`.
    """
    OwnSource.chosen, OwnSource.brought = {}, Brought()
    try:
        composed = hydra_compose(config_name=name, overrides=[*overrides], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        if not multirun or not _hydra_choices(overrides):
            raise
    if multirun and (chosen := _hydra_choices(overrides)):
        composed = hydra_compose(config_name=name, overrides=[*overrides, *chosen], return_hydra_config=True)
    hydra = OmegaConf.to_container(composed.hydra, resolve=False, enum_to_str=True)
    assert isinstance(hydra, dict)
    with open_dict(composed):
        del composed["hydra"]
    return composed, {str(key): value for key, value in hydra.items()}


def _hydra_choices(overrides: Sequence[str]) -> list[str]:
    """Return overrides for choices from Hydra's groups that the files read last make and the command line does not."""
    typed = set(map(override_key, overrides))
    return [f"{group}={choice}" for group, choice in OwnSource.chosen.items() if group not in typed]


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
    """Return the overrides in a form that Hydra can read, which has no null choice of a group."""
    return ["~loss" if text == "loss=null" else text for text in words if text.lstrip("+") != _DEFAULT]


def _keys_exist_in_yaml(source: ConfigSource, overrides: Sequence[str]) -> bool:
    """Whether each key's last word is in some YAML. For one that is not, composing in vain would cost a quarter of the
    time until it is refused.
    """
    files = (
        file for directory in source.directories for level in ("", "*/") for file in directory.glob(f"{level}*.yaml")
    )
    missing = {word for text in overrides for word in _WORD.findall(override_key(text))[-1:]}
    room = _LARGEST_SEARCH
    with suppress(OSError, ValueError):
        while missing and (file := next(files, None)):
            if file.is_file():  # a pipe would be waited for
                room -= file.stat().st_size
                if room < 0:
                    return True
                text = file.read_text(encoding="utf-8")
                missing -= {word for word in missing if re.search(rf"\b{word}\b", text)}
        return not missing
    return True


def _may_be_choice_list(text: str) -> bool:
    """Whether it may be `model=[cnn,mlp]`, which Hydra would merge and not refuse; a list of numbers as in
    `model.hidden=[16]` need not be composed twice.
    """
    key, sign, _ = text.partition("=[")
    return bool(sign) and key != "listeners" and "." not in key.partition("@")[0]


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


def answer_by_hydra(flags: Sequence[str], overrides: Sequence[str], source: ConfigSource, trust: Sequence[str]) -> None:
    """Let Hydra's own command line answer its flags, as `--cfg job`.

    Raises:
        ConfigError: the `hydra` node would run code or be ignored. All other mistakes are left to Hydra.
    """
    with config_loader(source, trust) as loader:
        try:
            _, hydra = _compose_with_hydra(source.name, _without_null(overrides), multirun=True)
            problems = [*check_hydra_node(hydra, _standard(loader, hydra), multirun=True)]
        except _CANNOT_COMPOSE:
            problems = []
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    run_hydra_cli(source, [*flags, *overrides], trust)


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
