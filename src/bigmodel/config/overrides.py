"""Report all mistakes of a command line at once: Hydra stops at the first, so each override is tried alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.config import override_parser as grammar
from bigmodel.config.own_yaml import OwnSource
from bigmodel.config.renamed import old_keys
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import first_line, truncate

_LONGEST_KEY = 255  # Hydra looks for a directory of that name


def diagnose_overrides(
    loader: ConfigLoader, name: str, overrides: Sequence[str], known_problems: Sequence[str] = ()
) -> tuple[list[str], DictConfig]:
    """Return `known_problems` and those of each single override, and the config composed of the valid overrides.

    Raises:
        ConfigError: overrides that are valid alone do not compose together.
    """
    problems = [*known_problems]
    groups: list[Override] = []
    values: list[Override] = []
    for text in overrides:
        try:
            override = grammar.parse_override(text, loader)
        except ConfigError as error:
            problems += error.lines
            continue
        if not override.key_or_group:
            problems.append(f"{truncate(text)}: cannot be parsed; write key=value")
        elif len(override.key_or_group) > _LONGEST_KEY:
            problems.append(f"{truncate(override.key_or_group)}: no such setting; see --help")
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
    known = _compose(name, good, problems)
    paths = list(_paths(known))
    fitting = []
    for override in values:
        key = override.key_or_group
        if not override.is_add() and key not in paths:
            problems += old_keys(known, [key]) or [_unknown_key_problem(key, paths, loader)]
        elif not override.is_add() and (lacking := [*_lacking(known, key, override.value())]):
            problems += [_unknown_key_problem(path, paths, loader) for path in lacking]
        elif override.is_add() and not override.is_force_add() and _is_set(known, override):
            problems.append(f"{truncate(key)}: is there already; leave out the +")
        else:
            fitting.append(_text(override))
    return problems, _compose(name, [*good, *fitting], problems) if fitting else known


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
        return f"{override.key_or_group}: needs a choice; {suggest('null', options)}"
    for choice in value if isinstance(value, list) else [value]:
        if choice is not None and str(choice) not in options:
            return f"{override.key_or_group}: there is no '{truncate(choice)}'; {suggest(str(choice), options)}"
    return None


def _unknown_key_problem(key: str, paths: Sequence[str], loader: ConfigLoader) -> str:
    return f"{truncate(key)}: no such setting; {_nearest_path(key, paths, loader)}"


def _is_set(config: DictConfig, override: Override) -> bool:
    """Whether there is a value which Hydra's `+` would not replace."""
    has_value = OmegaConf.select(config, override.key_or_group, throw_on_resolution_failure=False) is not None
    return has_value and not isinstance(override.value(), dict | list)


def _lacking(config: DictConfig, key: str, value: object) -> Iterator[str]:
    """Yield the keys of a value such as `{lr: 0.1}` that the node at `key`, over which it is laid, does not have."""
    node: Any = config
    for part in key.split("."):
        node = node._get_node(part)
    if not isinstance(value, dict) or not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation():
        return
    for name, item in value.items():
        path = f"{key}.{name}"
        if name in list(node.keys()):
            yield from _lacking(config, path, item)
        else:
            yield path


def _nearest_path(key: str, paths: Sequence[str], loader: ConfigLoader) -> str:
    same_leaf = [path for path in paths if path.rpartition(".")[2] == key]
    if same_leaf:
        return f"did you mean {same_leaf[0]}?"
    parent, _, leaf = key.rpartition(".")
    siblings = [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == parent]
    siblings = [name for name in siblings if name != "_target_"]
    if parent and siblings:
        return suggest(leaf, siblings, parent + ".")
    hint = suggest(key, [*paths, *loader.list_groups("")])
    return hint if hint.startswith("did") else "see bigmodel-train --help"


def _compose(name: str, overrides: Sequence[str], problems: list[str]) -> DictConfig:
    try:
        return hydra_compose(config_name=name, overrides=[*overrides])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        line = first_line(error)
        if line not in problems:
            problems.append(line)
        raise ConfigError(*dict.fromkeys(problems)) from error
    except RecursionError as error:
        raise ConfigError(*dict.fromkeys([*problems, OwnSource.circle()])) from error


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, DictConfig) and not config._is_none() and not config._is_interpolation():
        for key in map(str, config):
            yield f"{prefix}{key}"
            yield from _paths(config._get_node(key), f"{prefix}{key}.")
