"""A node's `_target_` in the words of the command line: `bigmodel.models.mlp.MLP` is `mlp`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from bigmodel.config.location import conf_directory
from bigmodel.config.renamed import current_target


def choice_name(group: str, node: Mapping[str, Any]) -> str:
    """The built-in choice of `group` with the node's target, and of several the one that agrees with most of its keys.

    Without one: the name of what is built, or the full target where it is not of this package. Two targets never get
    one name.
    """
    target = current_target(str(node["_target_"]))
    fitting = {name: known for name, known in _choices(group).items() if known.get("_target_") == target}
    if fitting:
        return max(fitting, key=lambda name: sum(node.get(key) == value for key, value in fitting[name].items()))
    return target.removeprefix("bigmodel.")


@cache
def _choices(group: str) -> dict[str, dict[str, Any]]:
    files = sorted((conf_directory() / group).glob("*.yaml")) if group.isidentifier() else []
    loaded = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    return {name: node for name, node in loaded.items() if isinstance(node, dict)}
