"""Read what a target accepts from its source, without running it, and check values against it.

Reading the source keeps torch out of the way: `bigmodel-train optim.lr=-1` is refused in a fraction of a second. A
target whose source cannot be read so (a re-export, a C function) is imported and inspected instead.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from bigmodel import constraints as ranges

TYPE_NAMES = {name: value for name, value in vars(ranges).items() if name[0].isupper()} | {
    "Annotated": Annotated,
    "Any": Any,
    "Literal": Literal,
    "Mapping": Mapping,
    "Sequence": Sequence,
}


class NodeOnly:
    """The annotation of a value that YAML cannot spell, as a loss: a node with a _target_ builds it."""


@dataclass(frozen=True)
class Parameter:
    """A keyword that a target takes. `annotation` is `Any` where it gives no type to check a value against."""

    annotation: Any
    required: bool


@dataclass(frozen=True)
class Signature:
    """Keywords of a target; `accepts_kwargs` if it takes any further ones.

    A parameter `from_` is the key `from`, which Python keeps for itself.
    """

    parameters: Mapping[str, Parameter]
    accepts_kwargs: bool


@cache
def signature(target: str) -> Signature:
    """Return the signature of a dotted name.

    Raises:
        ImportError: nothing of that name can be imported.
    """
    return source_signature(target) or _from_object(locate(target))


def dataclass_signature(cls: type) -> Signature:
    """Return the signature of an imported dataclass, its annotations resolved."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return Signature(
        {
            field.name: Parameter(hints[field.name], field.default is MISSING and field.default_factory is MISSING)
            for field in fields(cls)
            if field.init
        },
        False,
    )


def locate(target: str) -> Any:
    """Import the object of a dotted name.

    Raises:
        ImportError: the object does not exist, or its module imports something that does not.
    """
    module, _, name = target.rpartition(".")
    if not module:
        raise ImportError(f"'{target}' is not a dotted name, as in package.module.name")
    found = importlib.import_module(module)
    try:
        return getattr(found, name)
    except AttributeError:
        raise ImportError(f"module '{module}' has no '{name}'") from None


def source_signature(target: str) -> Signature | None:
    """Return the signature of a target of this package without importing it; None where its source does not tell."""
    module, _, name = target.rpartition(".")
    if module.partition(".")[0] != "bigmodel":
        return None
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    with open(spec.origin, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _from_arguments(node.args, skip=0)
        if isinstance(node, ast.ClassDef) and node.name == name:
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                    return _from_arguments(member.args, skip=1)
            fields = [member for member in node.body if isinstance(member, ast.AnnAssign)]
            return Signature(
                {ast.unparse(f.target): Parameter(_annotation(f.annotation), f.value is None) for f in fields}, False
            )
    return None


def _from_arguments(arguments: ast.arguments, skip: int) -> Signature:
    positional = arguments.args[skip:]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return Signature(
        {arg.arg.removesuffix("_"): Parameter(_annotation(arg.annotation), default is None) for arg, default in pairs},
        arguments.kwarg is not None,
    )


def _annotation(annotation: ast.expr | None) -> Any:
    if annotation is None:
        return Any
    try:
        return eval(ast.unparse(annotation), {"__builtins__": _BUILTINS}, TYPE_NAMES)  # our own source only
    except NameError:
        is_optional = isinstance(annotation, ast.BinOp) and ast.unparse(annotation.right) == "None"
        return NodeOnly | None if is_optional else NodeOnly


_BUILTINS = {kind.__name__: kind for kind in (bool, int, float, str, list, tuple, dict)}


def _from_object(target: Callable[..., Any]) -> Signature:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return Signature({}, True)
    named = {
        p.name: Parameter(p.annotation if not isinstance(p.annotation, str) else Any, p.default is p.empty)
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    return Signature(named, any(p.kind is p.VAR_KEYWORD for p in parameters))


def item_kind(kind: Any) -> Any:
    """Return the annotation of a list's items or a mapping's values; `Any` where it is not known."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        kinds = [item_kind(one) for one in arguments if one is not types.NoneType]
        return next((one for one in kinds if one is not Any), Any)
    if origin in (dict, typing.get_origin(Mapping[str, int])):
        return arguments[1]
    if origin in (list, tuple, typing.get_origin(Sequence[int])):
        return arguments[0]
    return Any


def type_mismatch(value: Any, kind: Any) -> str | None:
    """Return a description of the expected type if `value` does not match the annotation, else None."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is inspect.Parameter.empty:
        return None
    if kind is NodeOnly:
        return "a node with a _target_"
    if origin is Annotated:
        if isinstance(arguments[1], ranges.Pattern):
            fits = isinstance(value, str) and re.fullmatch(arguments[1].pattern, value)
            return None if fits else arguments[1].meaning
        return type_mismatch(value, arguments[0]) or (None if arguments[1].holds(value) else f"a number {arguments[1]}")
    if origin in (Union, types.UnionType):
        wishes = [type_mismatch(value, one) for one in arguments]
        return None if None in wishes else " or ".join(filter(None, wishes))
    if origin is Literal:
        return None if value in arguments else "one of " + ", ".join(map(str, arguments))
    if origin in (list, tuple, Sequence, typing.get_origin(Sequence[int])):
        return _sequence_mismatch(value, arguments, fixed=origin is tuple and Ellipsis not in arguments)
    if kind is None or kind is types.NoneType:
        return None if value is None else "null"
    if kind in (Mapping, dict) or origin in (dict, typing.get_origin(Mapping[str, int])):
        return _mapping_mismatch(value, arguments[1] if arguments else Any)
    if kind in _PLAIN:
        accepts, words = _PLAIN[kind]
        return None if accepts(value) else words
    return None


def _sequence_mismatch(value: Any, arguments: tuple[Any, ...], fixed: bool) -> str | None:
    if not isinstance(value, (list, tuple)):
        return "a list, as [1,2,3]"
    if fixed and len(value) != len(arguments):
        return f"a list of {len(arguments)}"
    kinds = arguments if fixed else (arguments[0],) * len(value)
    wishes = [type_mismatch(item, kind) for item, kind in zip(value, kinds, strict=True)]
    return next((f"{wish} for each item" for wish in wishes if wish), None)


def _mapping_mismatch(value: Any, kind: Any) -> str | None:
    if not isinstance(value, Mapping):
        return "a group of settings"
    wishes = [type_mismatch(item, kind) for item in value.values()]
    return next((f"{wish} for each key" for wish in wishes if wish), None)


_PLAIN: dict[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda v: isinstance(v, bool), "true or false"),
    int: (lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number"),
    float: (
        lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= sys.float_info.max,
        "a finite number",
    ),
    str: (lambda v: isinstance(v, str), "a text"),
}
