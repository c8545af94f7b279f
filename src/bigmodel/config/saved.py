"""Load the config that a run or a sweep has written, and lay overrides over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from bigmodel.config.composition import compose, config_loader
from bigmodel.config.config import Config
from bigmodel.config.location import ConfigSource
from bigmodel.config.override_parser import parse_override
from bigmodel.config.own_yaml import read_yaml
from bigmodel.config.resolvers import reject_resolvers
from bigmodel.config.seal import is_intact
from bigmodel.config.validation import check_composed
from bigmodel.errors import ConfigError
from bigmodel.quoting import escape_interpolation
from bigmodel.safe_files import read_text


def load_config(file: Path, trust: Sequence[str] = ()) -> Config:
    """Load a run's own `config.yaml`. It may be a stranger's: see `reject_resolvers`.

    Raises:
        ConfigError: the file is not YAML, or not a config of this version.
    """
    loaded = read_yaml(file)
    if not loaded:
        raise ConfigError(f"{file}: is not a config: it holds no keys")
    reject_resolvers(file, loaded, trust)
    config, problems = check_composed(loaded, "train", trust)
    if problems:
        raise ConfigError(*(f"{file}: {line}" for line in problems))
    return Config(config.unresolved, trust)  # without notes: nobody needs to rename the keys of a run's own file


def load_snapshot(file: Path, trust: Sequence[str] = ()) -> Config:
    """Load a config that a sweep has written, as `load_config` does.

    Raises:
        ConfigError: the file is not as it was written, or is no config.
    """
    config = load_config(file, trust)
    if is_intact(read_text(file)) is False:
        raise ConfigError(
            f"{file}: is not as the sweep wrote it; begin a new sweep, or, if you changed it on purpose, remove its "
            "last line"
        )
    return config


def apply_overrides(stored: Config, overrides: Sequence[str], source: ConfigSource) -> Config:
    """Apply overrides to a stored config, with its trust; a group override (`device=cpu`) replaces the whole group.

    Raises:
        ConfigError: a line for each mistake.
    """
    with config_loader(source, stored.trust) as loader:
        parsed = {text: parse_override(text, loader) for text in overrides}
        in_place = {text: one for text, one in parsed.items() if _is_own_value(one, stored, loader)}
    others = {text: one for text, one in parsed.items() if text not in in_place}
    if any(one.key_or_group == "experiment" for one in others.values()):
        raise ConfigError("resume: an experiment cannot be laid over a run; name the keys that change")
    values = {str(one.key_or_group): one.value() for one in in_place.values()}
    # the other defaults may be of other groups than the run's, so only named keys are taken
    fresh = compose("train", [*others], source, stored.trust).redacted_dict(escape_interpolation) if others else {}
    for one in others.values():
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
