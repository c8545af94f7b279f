"""Load the config that a run or a sweep has written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bigmodel.config.config import Config
from bigmodel.config.own_yaml import read_yaml
from bigmodel.config.resolvers import reject_resolvers
from bigmodel.config.seal import is_intact
from bigmodel.config.validation import check_composed
from bigmodel.errors import ConfigError
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
