"""Validate nodes with a `_target_` and build objects from them; only allowed targets are called.

A config can come from a stranger, inside a checkpoint. So only leaves of this package and the model and optimizer
modules of torch and torchvision are called: `validate` checks names, `instantiate` the resolved object's true module;
further prefixes come from the command line alone (`trust=[my_package]`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from keyword import iskeyword
from typing import Any

from bigmodel.config.old_methods import check_method_names
from bigmodel.config.signatures import Signature, item_kind, locate, signature, type_mismatch
from bigmodel.errors import ConfigError, suggest
from bigmodel.formatting import first_line, user_code_location
from bigmodel.runtime.exhaustion import describe_exhaustion
from bigmodel.runtime.offline import NetworkRefused, online

ALLOWED_TARGETS: Mapping[str, tuple[str, ...]] = {
    "model": ("bigmodel.models", "torchvision.models", "torch.nn.modules", "torch.nn"),
    "init": (
        "bigmodel.training.init_weights",
        "bigmodel.models.weights.lora",
        "bigmodel.models.weights.merging",
    ),
    "optim": ("bigmodel.optim", "torch.optim"),
    "schedule": ("bigmodel.optim.schedules",),
    "loss": ("bigmodel.tasks.losses", "torch.nn.modules.loss"),
    "task": ("bigmodel.tasks",),
    "dataset": ("bigmodel.datasets",),
    "device": ("bigmodel.runtime.device",),
    "listeners": ("bigmodel.listeners", "bigmodel.runs.report.listener", "bigmodel.runs.report.answers"),
    "kind": ("bigmodel.inference.processors", "bigmodel.datasets.audio.mel"),
}
_DEEPEST = 100
_TORCHS = ("torch", "torchvision")  # which refuse arguments with whatever comes to hand
_FIRST_WEIGHTS = ("pretrained", "weights", "weights_backbone")
_EXACT: Sequence[tuple[re.Pattern[str], Callable[[str], Any]]] = (  # what YAML and Python read alike
    (re.compile(r"[+-]?(0|[1-9]\d{0,30})", re.ASCII), int),
    (re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII), float),
    (re.compile(r"true|false"), lambda text: text == "true"),
    (re.compile(r"null"), lambda _: None),
)
RUNTIME_ARGUMENTS: Mapping[str, frozenset[str]] = {
    "init": frozenset({"model", "fresh", "epochs"}),
    "optim": frozenset({"model", "params"}),
    "listeners": frozenset({"directory", "training_run"}),
}


def validate(tree: Mapping[str, Any], root: str, trust: Sequence[str] = ()) -> list[str]:
    """Return a line for each mistake of a resolved config: keys, types and ranges, from `root`'s signature down."""
    problems = [*node_problems("", tree, signature(root), frozenset()), *_without_target(tree)]
    digests: dict[int, int] = {}
    if not _digest(tree, digests, _DEEPEST):
        return [f"the config: is nested more than {_DEEPEST} deep"]
    seen: set[int] = set()
    for path, node in _nodes("", tree):
        if digests[id(node)] in seen:  # one node, interpolated into another place: its mistakes are told once
            continue
        seen.add(digests[id(node)])
        group = path.partition(".")[0]
        given = RUNTIME_ARGUMENTS.get(group, frozenset())
        target = node["_target_"]
        allowed = (*ALLOWED_TARGETS.get(group, ()), *(ALLOWED_TARGETS["loss"] if path == "task.loss" else ()), *trust)
        if not isinstance(target, str) or not _within(target, allowed):
            problems.append(
                f"{path}._target_: '{target}' is not trusted; if you trust its code: trust=[{_package(target)}]"
            )
            continue
        try:
            problems += node_problems(path, node, signature(target), given)
        except (ImportError, ValueError) as error:
            where = user_code_location(error)
            problems.append(f"{path}._target_: {where}: {error}" if where else f"{path}._target_: {error}")
    return problems


def _digest(value: Any, digests: dict[int, int], room: int) -> int:
    """Hash a value by what it holds, and every mapping in it once, under its `id`; 0 where it is nested too deep.

    Comparing nodes with each other instead takes a stranger's file of 100 kB minutes.
    """
    if not room:
        return 0
    if isinstance(value, Mapping):
        parts = [(key, _digest(item, digests, room - 1)) for key, item in value.items()]
        found = hash(frozenset(parts)) or 1
        digests[id(value)] = found
        return found if all(part for _, part in parts) else 0
    if isinstance(value, (list, tuple)):
        items = tuple(_digest(item, digests, room - 1) for item in value)
        return (hash(items) or 1) if all(items) else 0
    return hash((type(value), str(value))) or 1


def _without_target(tree: Mapping[str, Any]) -> Iterator[str]:
    groups = {name: tree.get(name) for name in ALLOWED_TARGETS if name != "listeners"}
    listeners = tree.get("listeners")
    groups |= {f"listeners.{key}": node for key, node in listeners.items()} if isinstance(listeners, Mapping) else {}
    for name, node in groups.items():
        if isinstance(node, Mapping) and "_target_" not in node:
            yield f"{name}._target_: missing; choose one of the group, as {name.partition('.')[0]}=NAME"


def expected_annotation(tree: Mapping[str, Any], root: str, path: str, trust: Sequence[str] = ()) -> Any:
    """Return the annotation of a dotted key of a resolved config; `Any` where it is not known."""
    accepts: Signature | None = signature(root)
    node: Any = tree
    kind: Any = Any
    allowed = (*sum(ALLOWED_TARGETS.values(), ()), *trust)
    for part in path.split("."):
        if isinstance(node, Mapping) and accepts is not None:
            kind = accepts.parameters[part].annotation if part in accepts.parameters else Any
        else:
            kind = item_kind(kind)
        node = node.get(part) if isinstance(node, Mapping) else None
        target = node.get("_target_") if isinstance(node, Mapping) else None
        fits = isinstance(target, str) and _within(target, allowed)
        accepts = signature(target) if fits else None
    return kind


def parse_exactly(text: str, kind: Any) -> Any:
    """Parse a text as a number or truth value if the annotation takes that and no text; else return the text."""
    if type_mismatch(text, kind) is None:
        return text
    for pattern, read in _EXACT:
        if pattern.fullmatch(text):
            value = read(text)
            return text if type_mismatch(value, kind) else value
    return text


def instantiate(path: str, node: Mapping[str, Any], trust: Sequence[str] = (), **given: Any) -> Any:
    """Call the node's target with its other keys and those of `given` it takes; nodes inside it are built first.

    Raises:
        ConfigError: the target is not trusted, or refuses its arguments (ValueError).
    """
    target = locate(node["_target_"])
    allowed = (*sum(ALLOWED_TARGETS.values(), ()), *trust)
    if not callable(target) or not _within(f"{target.__module__}.{target.__qualname__}", allowed):
        raise ConfigError(f"{path}._target_: '{node['_target_']}' is not trusted")
    arguments = {
        key: _instantiate_nested(f"{path}.{key}", value, trust) for key, value in node.items() if key != "_target_"
    }
    arguments = {f"{key}_" if iskeyword(key) else key: value for key, value in arguments.items()}  # see `Signature`
    accepts = signature(node["_target_"])
    wanted = {key: value for key, value in given.items() if key in accepts.parameters}
    trusted = _within(node["_target_"], trust)
    try:
        with online() if trusted else nullcontext():
            built = target(**arguments, **wanted)
    except NetworkRefused as error:
        raise ConfigError(*(line if line.startswith(path) else f"{path}: {line}" for line in error.lines)) from error
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except TypeError as error:
        if "verflow" in str(error):
            raise ConfigError(f"{path}: a size is larger than any tensor: {first_line(error)}") from error
        if not _within(node["_target_"], _TORCHS):
            raise
        raise ConfigError(f"{path}: {first_line(error)}") from error
    except (AssertionError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        if describe_exhaustion(error) or not _within(node["_target_"], _TORCHS):
            raise
        raise ConfigError(f"{path}: {first_line(error) or type(error).__name__}") from error
    check_method_names(path, built)
    return built


def without_pretrained(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's node without pretrained weights, for one whose weights come from a checkpoint: the file that it
    started from may be gone, and a library's default would be downloaded.
    """
    accepts = signature(node["_target_"]).parameters
    return dict(node) | {key: None for key in _FIRST_WEIGHTS if key in node or key in accepts}


def _instantiate_nested(path: str, value: Any, trust: Sequence[str]) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        return instantiate(path, value, trust)
    if isinstance(value, (list, tuple)):
        return [_instantiate_nested(path, item, trust) for item in value]
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


def node_problems(
    path: str, node: Mapping[str, Any], accepts: Signature, given: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield a line for each key of a node that its target does not accept, and for each that is missing.

    `given` are arguments that the caller of the target adds.
    """
    prefix = f"{path}." if path else ""
    names = [name for name in accepts.parameters if name not in given]
    for key, value in node.items():
        if key == "_target_" or (key not in names and accepts.accepts_kwargs):
            continue
        if key not in names:
            yield f"{prefix}{key}: no such setting; {suggest(str(key), names, prefix)}"
        elif value == "???":
            yield f"{prefix}{key}: needs a value: {prefix}{key}=..."
        elif not (isinstance(value, Mapping) and "_target_" in value):
            wish = type_mismatch(value, accepts.parameters[key].annotation)
            if wish:
                yield f"{prefix}{key}: must be {wish}, not {_show(value)}"
    for name in names:
        if accepts.parameters[name].required and name not in node:
            yield f"{prefix}{name}: missing; add {prefix}{name}=..."


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value).replace("None", "null")
    return text if len(text) <= 80 else text[:77] + "..."


def _within(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _package(target: object) -> str:
    return str(target).partition(".")[0][:80]
