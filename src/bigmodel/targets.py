"""From a node with a `_target_` to an object: which targets may be called, whether the node fits, and the call.

A config can come from a stranger, inside a checkpoint. So only leaves of this package and the model and optimizer
modules of torch and torchvision are called, checked by name here and by the resolved object's true module in `build`;
further prefixes come from the command line alone (`trust=[my_package]`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from keyword import iskeyword
from typing import Any

from bigmodel.errors import ConfigError
from bigmodel.signatures import Signature, locate, misfit, signature

_LEAVES: Mapping[str, tuple[str, ...]] = {
    "model": ("bigmodel.models", "torchvision.models", "torch.nn.modules", "torch.nn"),
    "init": ("bigmodel.initial", "bigmodel.models.lora"),
    "optim": ("bigmodel.optim", "torch.optim"),
    "schedule": ("bigmodel.schedules",),
    "loss": ("bigmodel.losses", "torch.nn.modules.loss"),
    "task": ("bigmodel.tasks",),
    "dataset": ("bigmodel.datasets", "bigmodel.augment"),
    "device": ("bigmodel.device",),
    "listeners": ("bigmodel.listeners",),
    "kind": ("bigmodel.predicting", "bigmodel.datasets.mel"),
    "sample": ("bigmodel.predicting",),
}
_GIVEN_BY_THE_COMMAND: Mapping[str, frozenset[str]] = {
    "init": frozenset({"model", "fresh", "epochs"}),
    "optim": frozenset({"model", "params"}),
    "listeners": frozenset({"directory"}),
}


def check(tree: Mapping[str, Any], root: str, trust: Sequence[str] = ()) -> list[str]:
    """Everything wrong with a resolved config, a line each: keys, types and ranges, from `root`'s signature down."""
    problems = list(_misfits("", tree, signature(root), frozenset()))
    seen: list[Mapping[str, Any]] = []
    for path, node in _nodes("", tree):
        if node in seen:  # one node, interpolated into another place: its mistakes are told once
            continue
        seen.append(node)
        group = path.partition(".")[0]
        given = _GIVEN_BY_THE_COMMAND.get(group, frozenset())
        target = node["_target_"]
        allowed = (*_LEAVES.get(group, ()), *(_LEAVES["loss"] if path == "task.loss" else ()), *trust)
        if not isinstance(target, str) or not _within(target, allowed):
            problems.append(
                f"{path}._target_: '{target}' is not trusted; if you trust its code: trust=[{_package(target)}]"
            )
            continue
        try:
            problems += _misfits(path, node, signature(target), given)
        except (ImportError, ValueError) as error:
            problems.append(f"{path}._target_: {error}")
    return problems


def build(path: str, node: Mapping[str, Any], trust: Sequence[str] = (), **given: Any) -> Any:
    """Call the node's target with its other keys and those of `given` it takes; nodes inside it are built first.

    Raises:
        ConfigError: the target is not trusted, or refuses its arguments (ValueError).
    """
    target = locate(node["_target_"])
    allowed = (*sum(_LEAVES.values(), ()), *trust)
    if not callable(target) or not _within(f"{target.__module__}.{target.__qualname__}", allowed):
        raise ConfigError(f"{path}._target_: '{node['_target_']}' is not trusted")
    arguments = {key: _built(f"{path}.{key}", value, trust) for key, value in node.items() if key != "_target_"}
    arguments = {f"{key}_" if iskeyword(key) else key: value for key, value in arguments.items()}  # see `Signature`
    accepts = signature(node["_target_"])
    wanted = {key: value for key, value in given.items() if key in accepts.parameters}
    try:
        return target(**arguments, **wanted)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _built(path: str, value: Any, trust: Sequence[str]) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        return build(path, value, trust)
    if isinstance(value, (list, tuple)):
        return [_built(path, item, trust) for item in value]
    return value


def _nodes(path: str, tree: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            yield path, tree
        for key, value in tree.items():
            yield from _nodes(f"{path}.{key}" if path else str(key), value)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _nodes(path, item)


def _misfits(path: str, node: Mapping[str, Any], accepts: Signature, given: frozenset[str]) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    names = [name for name in accepts.parameters if name not in given]
    for key, value in node.items():
        if key == "_target_" or (key not in names and accepts.open_ended):
            continue
        if key not in names:
            yield f"{prefix}{key}: no such setting; {nearest(str(key), names, prefix)}"
        elif value == "???":
            yield f"{prefix}{key}: needs a value: {prefix}{key}=..."
        elif not (isinstance(value, Mapping) and "_target_" in value):
            wish = misfit(value, accepts.parameters[key].kind)
            if wish:
                yield f"{prefix}{key}: must be {wish}, not {_shown(value)}"
    for name in names:
        if accepts.parameters[name].required and name not in node:
            yield f"{prefix}{name}: missing; add {prefix}{name}=..."


def nearest(word: str, choices: Sequence[str], prefix: str = "") -> str:
    """`did you mean …?` with the closest choice, or all of them where none is close."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return "choices: " + ", ".join(sorted(choices)) if choices else "there is nothing to choose from"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value).replace("None", "null")
    return text if len(text) <= 80 else text[:77] + "..."


def _within(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _package(target: object) -> str:
    return str(target).partition(".")[0][:80]
