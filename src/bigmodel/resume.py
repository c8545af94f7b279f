"""What a resumed run is made of: the run's own config, and the few keys that may differ from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.compose import Source, changed_by
from bigmodel.config import Config, from_yaml
from bigmodel.errors import ConfigError
from bigmodel.guard import say
from bigmodel.sweep.directory import is_sweep

_GROWS = ("epochs",)
_NO_INFLUENCE = (
    "listeners",
    "keep",
    "save_every",
    "data_dir",
    "dataset.data_dir",
    "device",
    "output_dir",
    "workers",
    "profile",
    "dry_run",
)


def resumed(run: str, overrides: Sequence[str], source: Source, trust: Sequence[str]) -> tuple[Path, Config]:
    """The run's directory and its config with the allowed changes; the difference is printed.

    Raises:
        ConfigError: there is no such run, or a key changed that would make it another run.
    """
    directory = Path(run)
    if is_sweep(directory):
        raise ConfigError(f"resume: '{run}' is a sweep; add -m")
    if not (directory / "config.yaml").is_file():
        raise ConfigError(f"resume: there is no run at '{run}' (no config.yaml in it); runs lie under outputs/")
    stored = from_yaml(directory / "config.yaml", trust)
    if not overrides:
        return directory, stored
    changed = changed_by(stored, overrides, source, trust)
    difference = list(_difference("", stored.tree, changed.tree))
    refused = [
        stored.hidden(changed.hidden(f"resume: {problem}"))
        for key, old, new in difference
        if (problem := _refusal(key, old, new))
    ]
    if refused:
        raise ConfigError(*refused)
    for key, old, new in difference:
        say(stored.hidden(changed.hidden(f"resume: {key} was {old}, is now {new}")))
    return directory, changed


def _refusal(key: str, old: Any, new: Any) -> str | None:
    if key in _GROWS:
        return None if new >= old else f"{key} was {old} and may grow, not shrink to {new}"
    if any(key == free or key.startswith(free + ".") for free in _NO_INFLUENCE):
        return None
    return f"{key} was {old} and cannot become {new}; what may change: {', '.join((*_GROWS, *_NO_INFLUENCE))}"


def _difference(prefix: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from _difference(f"{prefix}.{key}" if prefix else str(key), old.get(key), new.get(key))
    elif old != new:
        yield prefix, old, new
