"""Explain a failure of user code that uses this package by the names of an earlier version."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import traceback
import types
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from bigmodel.config.old_methods import METHODS
from bigmodel.config.old_names import MEMBERS, MODULES, REMOVED, current_name


class RenamedImportError(ImportError):
    """User code imports this package by old names. `lines` hold one sentence for each import."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def renamed_imports(error: BaseException) -> Sequence[str]:
    """Return one line for each old name that the file which raised `error` imports: where it is, and its new name.

    An old attribute of a module or class, and an old keyword, is one line. Empty where `error` has another cause, or
    was raised in this package's own code.
    """
    if isinstance(error, RenamedImportError):
        return error.lines
    asked = _asked_for(error)
    said = _explain(*asked) if asked else _renamed_member(error)
    place = _user_frame(error) if said else None
    if place is None or said is None:
        return ()
    file, line = place
    imports = list(_old_imports(file))
    if not any(first <= line <= last for _, first, last, _ in imports):  # an attribute of a module
        return [f"{_shown(file)}, line {line}: {said}"]
    return [f"{_shown(file)}, line {number}: {said}" for number, _, _, said in imports]


def _asked_for(error: BaseException) -> tuple[str, str] | None:
    """Return the module of this package that `error` is about, and the name in it that is missing."""
    if isinstance(error, ModuleNotFoundError):
        module, _, name = (error.name or "").rpartition(".")
    elif isinstance(error, ImportError):
        module, name = error.name or "", getattr(error, "name_from", None) or _quoted(error)
    elif isinstance(error, AttributeError) and isinstance(error.obj, types.ModuleType):
        module, name = error.obj.__name__, error.name or ""
    else:
        return None
    return (module, name) if module.partition(".")[0] == "bigmodel" and name else None


def _renamed_member(error: BaseException) -> str | None:
    """Return `CLASS.OLD is NEW now` for an attribute or a keyword that a class of this package had."""
    if isinstance(error, AttributeError):
        name = error.name or ""
        if isinstance(error.obj, super):  # `super().metrics(…)` in a subclass
            return _renamed_method(error.obj, name)
        kind = type(error.obj)
        known = kind.__module__.partition(".")[0] == "bigmodel"
        owner = kind.__name__ if known else ""
    elif isinstance(error, TypeError):
        found = re.fullmatch(r"(\w+)\.__(?:init|new)__\(\) got an unexpected keyword argument '(\w+)'.*", str(error))
        owner, name = found.groups() if found else ("", "")
    else:
        return None
    new = MEMBERS.get(owner, {}).get(name)
    return f"{owner}.{name} is {new} now" if new else None


def _renamed_method(parent: super, name: str) -> str | None:
    """Return `CLASS.OLD is NEW now` for a method that the parent class, one of this package, had by an old name."""
    kind: type | None = getattr(parent, "__self_class__", None)
    mro = kind.__mro__ if kind is not None else ()
    owner = next((base for base in mro if base.__module__.partition(".")[0] == "bigmodel"), None)
    for methods in METHODS.values():
        for renamed in methods:
            if owner is not None and renamed.old == name and hasattr(owner, renamed.new):
                return f"{owner.__name__}.{name} is {renamed.new} now"
    return None


def _quoted(error: ImportError) -> str:
    """Return the NAME of `cannot import name 'NAME' from …`, which Python 3.11 has in the message alone."""
    head, _, rest = str(error).partition("'")
    return rest.partition("'")[0] if head.startswith("cannot import name") else ""


def _user_frame(error: BaseException) -> tuple[Path, int] | None:
    """Return file and line of the innermost frame, those of Python left out, if it is user code."""
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in ("bigmodel", "hydra_plugins"):
            place = None
        elif package not in sys.stdlib_module_names and file.is_file():
            place = file, line
    return place


def _old_imports(file: Path) -> Iterator[tuple[int, int, int, str]]:
    """Yield for each import of an old name: its line, the first and last of its statement, and the explanation."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            asked = [(alias.lineno, node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            asked = [(alias.lineno, *_split(alias.name)) for alias in node.names]
        else:
            continue
        for line, module, name in asked:
            said = _explain(module, name) if module.partition(".")[0] == "bigmodel" else None
            if said:
                found.add((line, node.lineno, node.end_lineno or line, said))
    yield from sorted(found)


def _explain(module: str, name: str) -> str | None:
    """Return `OLD is NEW now`, or that it was removed; None if `module.name` exists today, or never existed."""
    full = f"{module}.{name}"
    for removed in REMOVED:
        if full == removed or full.startswith(f"{removed}."):
            return f"{removed} was removed and has no successor"
    if name == "*":
        return _explain(*_split(module)) if module in MODULES else None
    new = current_name(module, name)
    if new is None or _exists(module, name):
        return None
    if _exists(*_split(new)):
        return f"{module}.{name} is {new} now"
    return f"{module} is {MODULES.get(module, module)} now, without {name}"


def _exists(module: str, name: str) -> bool:
    try:
        if hasattr(importlib.import_module(module), name):
            return True
        return find_spec(f"{module}.{name}") is not None
    except ImportError:
        return False


def _split(dotted: str) -> tuple[str, str]:
    module, _, name = dotted.rpartition(".")
    return module, name


def _shown(file: Path) -> str:
    try:
        return str(file.relative_to(Path.cwd()))
    except (OSError, ValueError):
        return str(file)
