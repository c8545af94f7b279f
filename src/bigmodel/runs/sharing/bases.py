"""What a run's weights began as (`init.from`), and under which licenses those weights and their data are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bigmodel.config.yaml_limits import yaml_text
from bigmodel.errors import BigmodelError, ConfigError
from bigmodel.runs.records import is_run
from bigmodel.runs.run_files import read_json
from bigmodel.runs.sharing.author import Answers
from bigmodel.runs.sharing.folder import METRICS
from bigmodel.runs.sharing.licenses import DataLicense, data_license
from bigmodel.safe_files import read_text

_MOST_GENERATIONS = 20
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Base(NamedTuple):
    """Weights that others began as: their name, their license (empty: of one's own run), and the data behind them."""

    name: str
    license: str
    data: DataLicense | None = None


def bases_of(config: Mapping[str, Any], directory: object, answers: Answers, generation: int = 0) -> list[Base]:
    """Return what the weights of a run began as, runs' own beginnings too. `directory` is where the run was started.

    Raises:
        ConfigError: weights come without a license, and the card has none.
    """
    found: list[Base] = []
    for source in _sources(config):
        path = _resolve(source, directory)
        if path is not None and (given := _given_away(path)):
            found.append(Base(path.name, given))
        elif path is not None and path.is_dir() and is_run(path, []) and generation < _MOST_GENERATIONS:
            parent = _config_of(path)
            node = parent.get("dataset")
            data = data_license(node) if isinstance(node, Mapping) and "_target_" in node else None
            found.append(Base(path.name, "", data))
            started = read_json(path / "environment.json", []).get("directory")
            found += bases_of(parent, started, answers, generation + 1)
        elif answers.base_license:
            found.append(Base(Path(source).name, answers.base_license))
        else:
            raise ConfigError(
                f"card: base_license: of {Path(source).name}, which the weights began as, must be answered: it comes "
                "without a license that could be read"
            )
    return found


def _sources(config: Mapping[str, Any]) -> Iterator[str]:
    init, model = config.get("init"), config.get("model")
    given = init.get("from") if isinstance(init, Mapping) else None
    merge = init.get("merge") if isinstance(init, Mapping) else None
    for one in given if isinstance(given, (list, tuple)) else [given]:
        if isinstance(one, str):
            yield one
    if isinstance(merge, Mapping) and isinstance(merge.get("base"), str):
        yield merge["base"]
    pretrained = model.get("pretrained") if isinstance(model, Mapping) else None
    if pretrained:
        yield str(pretrained) if isinstance(pretrained, str) else f"{model['_target_']} (pretrained)"  # type: ignore[index]


def _resolve(source: str, directory: object) -> Path | None:
    places = [Path(source).expanduser(), *([Path(directory) / source] if isinstance(directory, str) else [])]
    return next((place for place in places if place.exists()), None)


def _given_away(path: Path) -> str:
    """Return the license of a folder that was shared, or empty."""
    if path.is_dir():
        try:
            facts = json.loads(read_text(path / METRICS))
            return str(facts["license"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            pass
    return ""


def _config_of(path: Path) -> Mapping[str, Any]:
    try:
        loaded = yaml.load(yaml_text(path / "config.yaml"), _Loader)
    except (BigmodelError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
