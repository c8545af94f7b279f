"""Names of choices as on the command line: the `_target_` `bigmodel.models.mlp.MLP` is `mlp`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from bigmodel.config.location import choices_of_target


def choice_name(group: str, node: Mapping[str, Any]) -> str:
    """Return the built-in choice of `group` with the node's target; of several, the one that shares most keys.

    Without such a choice, return the target, shortened if it is of this package. Two targets never get the same name.
    """
    target = str(node["_target_"])
    matching = choices_of_target(group, target)
    if len(matching) > 1:
        known = {name: yaml.safe_load(text) for name, text in matching.items()}
        return max(
            known, key=lambda name: sum(key in node and node[key] == value for key, value in known[name].items())
        )
    return next(iter(matching), target.removeprefix("bigmodel."))
