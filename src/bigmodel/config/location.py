"""Locate the YAML groups, in an installed wheel or at the root of a checkout, and list choices that fit together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_TAKEN = re.compile(r"\$\{dataset\.(\w+)\}")
_TASKS = re.compile(r"goes with ((?:,? ?(?:or )?task=\w+)+)")
_TARGET = re.compile(r"^_target_: *(\S+)", re.MULTILINE)


class ConfigSource(NamedTuple):
    """The directories that YAML is looked for in, the built-in one last, and the name of the root file."""

    directories: tuple[Path, ...]
    name: str


def conf_directory() -> Path:
    """Return the directory with `train.yaml` and the groups."""
    package = Path(__file__).resolve().parents[1]
    inside, checkout = package / "conf", package.parents[1] / "conf"
    return inside if inside.is_dir() else checkout


def choices_of_target(group: str, target: str) -> dict[str, str]:
    """Return the YAML of the built-in choices of a group that have this target, by name."""
    return {name: text for name, text in _texts(group).items() if target in _TARGET.findall(text)}


@cache
def _texts(group: str) -> dict[str, str]:
    files = sorted((conf_directory() / group).glob("*.yaml")) if group.isidentifier() else []
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def fitting_models(tree: Mapping[str, Any]) -> str:
    """List the built-in models that fit a config's dataset, for a message; "" if none is known.

    Tasks are added where the config's own task does not fit the dataset.

    A model or task goes with a dataset that has each key the choice's YAML takes from it, as `${dataset.context}`; the
    first comment of a model's or a dataset's YAML may limit the tasks, as "goes with task=ctc".
    """
    dataset = tree.get("dataset")
    keys = set(dataset) if isinstance(dataset, Mapping) else set[str]()
    ours = _of_target("dataset", dataset)
    limits = set[str]().union(*(limit for _, _, limit in ours))
    tasks = [name for name, taken, _ in _choices("task") if taken <= keys and (not limits or name in limits)]
    chosen = [name for name, _, _ in _of_target("task", tree.get("task")) if name in tasks]
    pairs = [
        (name, task)
        for task in chosen or tasks
        for name, taken, limit in _choices("model")
        if taken and taken <= keys and (task in limit if limit else task not in _own_tasks())
    ]
    if not pairs:
        return ""
    named = {task for _, task in pairs}
    if not chosen and len(named) == 1 and len(pairs) > 1:
        return f"models for this data: {', '.join(name for name, _ in pairs)}, each with task={named.pop()}"
    shown = dict.fromkeys(name if chosen else f"{name} with task={task}" for name, task in pairs)
    return f"models for this data: {', '.join(shown)}"


def _own_tasks() -> set[str]:
    """Return the tasks that have models of their own."""
    return set[str]().union(*(limit for _, _, limit in _choices("model")))


def _of_target(group: str, node: Any) -> list[tuple[str, frozenset[str], frozenset[str]]]:
    target = node.get("_target_") if isinstance(node, Mapping) else None
    names = choices_of_target(group, target) if isinstance(target, str) else {}
    return [choice for choice in _choices(group) if choice[0] in names]


@cache
def _choices(group: str) -> tuple[tuple[str, frozenset[str], frozenset[str]], ...]:
    """Each built-in choice of a group: its name, the dataset's keys that it takes, and the tasks it is limited to."""
    return tuple(
        (name, frozenset(_TAKEN.findall(text)), frozenset(_limits(text))) for name, text in _texts(group).items()
    )


def _limits(text: str) -> list[str]:
    named = _TASKS.search(text.partition("\n")[0])
    return re.findall(r"task=(\w+)", named[1]) if named else []
