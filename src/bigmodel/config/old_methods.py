"""Refuse objects of user code that implement an extension protocol by the method names of an earlier version.

Without this, a task's `metrics` would be missing where the loop asks for `train_metrics`, and an override of an old
name in a subclass of this package's would never be called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bigmodel.errors import ConfigError


class Renamed(NamedTuple):
    """A method, or a property, of an extension protocol that has another name now."""

    old: str
    new: str
    parameters: tuple[str, ...] | None = None  # of the old method, without `self`; None for a property
    is_common: bool = False  # whether a subclass may well have a method of that name for a purpose of its own
    change: str = ""  # what differs besides the name


_BATCH = ("loss", "outputs", "batch")
_SUMS = "return a dict of named sums (tensors), with loss_denominator"
METHODS: Mapping[str, Sequence[Renamed]] = {  # by the config's group; `loader` is what a dataset's `loader` returns
    "task": (
        Renamed("tally", "train_sums", _BATCH, change=_SUMS),
        Renamed("metrics", "train_metrics", ("tally",), is_common=True, change="take the dict of named sums"),
        Renamed("examination", "eval_sums", _BATCH, change="return a dict of named sums (tensors)"),
        Renamed("report", "eval_metrics", ("examination",), is_common=True, change="take the dict of named sums"),
    ),
    "dataset": (
        Renamed("open", "loader", ("how",), is_common=True),
        Renamed("facts", "properties"),
        Renamed("about", "processor_spec", ()),
        Renamed("summary", "description", is_common=True),
        Renamed("example", "sample_batch", ("count",), is_common=True),
    ),
    "loader": (
        Renamed("train", "train_batches", ("first", "last"), is_common=True),
        Renamed("evaluation", "eval_batches", ("split",)),
        Renamed("streamed", "uses_workers"),
        Renamed("placement", "describe_placement"),
    ),
    "kind": (
        Renamed("find", "list_inputs", ("given",), is_common=True),
        Renamed("read", "load", ("source",), is_common=True),
        Renamed("prepared", "collate", ("samples", "device")),
        Renamed("answers", "predict", ("model", "inputs")),
        Renamed("table", "format_rows", ("sources", "answered"), is_common=True),
        Renamed("example", "random_inputs", ("count", "generator"), is_common=True),
    ),
    "model": (
        Renamed("initialise", "init_from_batch", ("inputs",)),
        Renamed("translated", "adapt_state_dict", ("tensors",)),
    ),
}


class RenamedMethodError(ConfigError):
    """A user's class has methods by the names of an earlier version; a line for each."""


def check_method_names(group: str, built: Any) -> None:
    """Raise RenamedMethodError if user code gives `built` a method of its protocol by an old name.

    An old name is no mistake where user code implements the new one too, nor in classes of this package or of a
    library. Where the new name is inherited from a class of this package, an override of the old one counts if it
    could stand for the old method: with as many parameters or, where the name is a common word, with the same ones.
    """
    lines = []
    for renamed in METHODS.get(group, ()):
        owner = _owner(type(built), renamed.old)
        if owner is None and renamed.old in getattr(built, "__dict__", {}):  # as a dataclass has its fields
            owner = type(built)
        if owner is None or not _is_user_code(owner):
            continue
        inherited = _owner(type(built), renamed.new)
        if inherited is None and not _has_own(built, renamed.new):
            is_old = group != "model" or _fits(vars(owner).get(renamed.old), renamed, exactly=False)
        else:
            is_old = (
                inherited is not None
                and inherited is not owner
                and not _is_user_code(inherited)
                and issubclass(owner, inherited)
                and renamed.old in vars(owner)
                and _fits(vars(owner)[renamed.old], renamed, exactly=renamed.is_common)
            )
        if is_old:
            change = f" and {renamed.change}" if renamed.change else ""
            name = f"{owner.__module__}.{owner.__qualname__}.{renamed.old}"
            lines.append(f"{group}: {name} is called {renamed.new} now; rename it{change}")
    if lines:
        raise RenamedMethodError(*lines)


def _owner(kind: type, name: str) -> type | None:
    """Return the class that defines or, as a dataclass its fields, declares the name."""
    return next((base for base in kind.__mro__ if name in vars(base) or name in inspect.get_annotations(base)), None)


def _is_user_code(kind: type) -> bool:
    return kind.__module__.partition(".")[0] not in {"bigmodel", "torch", "torchvision", "timm", "builtins", "typing"}


def _has_own(built: Any, name: str) -> bool:
    """Whether the object itself has an attribute that its class has not, or a class that answers for any name."""
    owner = _owner(type(built), "__getattr__")
    return name in getattr(built, "__dict__", {}) or (owner is not None and _is_user_code(owner))


def _fits(member: Any, renamed: Renamed, exactly: bool) -> bool:
    """Whether a member of a class could be the old method: by the number of its parameters or, `exactly`, by name."""
    if renamed.parameters is None:
        return not inspect.isroutine(member)
    try:
        parameters = list(inspect.signature(member).parameters.values())[1:]
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if exactly:
        return [p.name for p in positional[: len(renamed.parameters)]] == list(renamed.parameters)
    required = [p for p in positional if p.default is p.empty]
    return len(required) == len(renamed.parameters)
