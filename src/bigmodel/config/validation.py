"""Validate a composed config and report every mistake, a line each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigmodel.config.config import Config, keys_from_data
from bigmodel.config.instantiate import expected_annotation, parse_exactly, validate
from bigmodel.config.location import fitting_models
from bigmodel.config.resolvers import (
    is_plain,
    iter_leaves,
    record_env_reads,
)
from bigmodel.config.schema import NOT_GIVEN, command_keys
from bigmodel.formatting import first_line, truncate
from bigmodel.redaction import is_secret_key

_UNSET = re.compile(r".*Environment variable '(.*)' not found", re.DOTALL)
_MISSING = re.compile(r"Interpolation key '([\w.]+)' not found")
PLACEHOLDER_LR = 1e-3  # where `optim.lr` is still to be found: a rate that every optimizer takes


def check_composed(composed: DictConfig, command: str, trust: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """Return the config of a command, and a line for each mistake in it.

    A text from a resolver becomes the number that its key asks for, where it says exactly that: `seed=${oc.env:SEED}`.
    A number is no secret, and is written as it is. A text from the environment stays a reference, so it must be one.
    """
    config, problems = Config(composed, trust), []
    baked: dict[str, Any] = {}
    tree: dict[str, Any] | None = None
    for path, raw in iter_leaves("", config.unresolved):  # under today's names
        if not isinstance(raw, str) or "${" not in raw or (":" not in raw and is_plain(raw)):
            continue
        try:
            with record_env_reads() as names:
                value = OmegaConf.select(config.unresolved, path)
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            must_stay = not names or is_plain(raw) or _has_text(value)
            tree = config.to_dict() if tree is None else tree
            kind = expected_annotation(tree, f"bigmodel.config.schema.{command.capitalize()}", path, config.trust)
        except (OmegaConfBaseException, HydraException, ImportError, ValueError, RecursionError):
            continue  # told below
        number = parse_exactly(value, kind) if isinstance(value, str) and ":" in raw else value
        if number is not value or not must_stay:
            baked[path] = number
        elif names and not is_plain(raw):
            problems.append(f"{path}: takes text from the environment in a roundabout way; write '${{oc.env:NAME}}'")
    if problems:
        return config, problems
    config = config.with_values(baked) if baked else config
    return config, validate_config(config, command)


def _has_text(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return any(map(_has_text, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (str, bytes))


def validate_config(config: Config, command: str) -> list[str]:
    """Return a line for each mistake of a composed config."""
    try:
        tree = config.to_dict()
        if placeholders := _placeholders(tree):
            tree = config.with_values(placeholders).to_dict()
    except (OmegaConfBaseException, HydraException) as error:
        key = getattr(error, "full_key", None)
        if key and (missing := _MISSING.match(first_line(error))):
            group, _, name = missing[1].rpartition(".")
            if not group:
                return [f"{key}: needs {name}, and none is chosen; set {name}=..."]
            fitting = fitting_models(_nodes(config.unresolved)) if group == "dataset" else ""
            hint = f"; {fitting}" if fitting else f"; choose another {group} or set {key}=..."
            return [f"{key}: needs {group}.{name}, which the chosen {group} does not define{hint}"]
        if unset := _UNSET.match(str(error)):
            name = truncate(unset[1])
            said = f"the environment has no {name}; set it, or give a default: ${{oc.env:{name},...}}"
            return [f"{key}: {said}" if key else said]
        return [f"{key}: {first_line(error)}" if key else first_line(error)]
    instead = "a plain-text secret would be saved to disk; pass it as '${oc.env:NAME}'"
    plain = [f"{path}: {instead}" for path in _secrets(config)]
    refused = {line.partition(": ")[0] for line in plain}
    problems = [
        config.redact(line)
        for line in validate(
            command_keys(tree, command), f"bigmodel.config.schema.{command.capitalize()}", config.trust
        )
        if line.partition(": ")[0] not in refused
    ]
    problems += plain
    if command == "predict" and tree.get("chat") is True and tree.get("input") == NOT_GIVEN:  # it is typed
        problems = [line for line in problems if not line.startswith("input: ")]
    keys = {line.partition(": ")[0] for line in problems} | keys_from_data(tree)
    return [line for line in problems if config.interpolated_from(line.partition(": ")[0]) not in keys]


def auto_keys(tree: Mapping[str, Any]) -> list[str]:
    """Return those of `batch_size` and `optim.lr` that are `auto`; `auto_values` resolves them before a run starts."""
    optim = tree.get("optim")
    rate = optim.get("lr") if isinstance(optim, Mapping) else None
    return [key for key, value in (("batch_size", tree.get("batch_size")), ("optim.lr", rate)) if value == "auto"]


def _placeholders(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return placeholders for values that are not known yet, so that all others can be checked."""
    numbers = {"batch_size": 1, "optim.lr": PLACEHOLDER_LR}
    return {key: numbers[key] for key in auto_keys(tree)}


def _nodes(composed: DictConfig) -> dict[str, Any]:
    """Return the groups by name, with their keys; interpolations are not resolved."""
    container = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(container, dict)
    return {str(name): node for name, node in container.items()}


def _secrets(config: Config) -> Iterator[str]:
    """Yield keys that hold a plain-text secret."""
    for path, raw in iter_leaves("", config.unresolved):
        if is_secret_key(path) and isinstance(raw, str) and raw not in ("", "???") and "oc.env" not in raw:
            yield path
