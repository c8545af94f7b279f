"""Names of choices as on the command line: the `_target_` `bigmodel.models.mlp.MLP` is `mlp`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from bigmodel.config.location import conf_directory


def choice_name(group: str, node: Mapping[str, Any]) -> str:
    """Return the built-in choice of `group` with the node's target; of several, the one that shares most keys.

    Without such a choice, return the target, shortened if it is of this package. Two targets never get the same name.
    """
    target = str(node["_target_"])
    matching = {name: known for name, known in _choices(group).items() if known.get("_target_") == target}
    if matching:
        return max(matching, key=lambda name: sum(node.get(key) == value for key, value in matching[name].items()))
    return target.removeprefix("bigmodel.")


@cache
def _choices(group: str) -> dict[str, dict[str, Any]]:
    files = sorted((conf_directory() / group).glob("*.yaml")) if group.isidentifier() else []
    loaded = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    return {name: node for name, node in loaded.items() if isinstance(node, dict)}
