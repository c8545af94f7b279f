"""Explain an import that fails because a module or name of this package has moved since the user's code was written."""

from __future__ import annotations

import ast
import importlib
import sys
import traceback
import types
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from bigmodel.config.old_names import MODULES, current_name


class RenamedImportError(ImportError):
    """User code imports this package by old names. `lines` hold one sentence for each import."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def renamed_imports(error: BaseException) -> Sequence[str]:
    """Return one line for each old name that the file which raised `error` imports: where it is, and its new name.

    Empty where `error` has another cause. Files of this package, of Python and of generated code are not looked into.
    """
    if isinstance(error, RenamedImportError):
        return error.lines
    asked = _asked_for(error)
    place = _user_frame(error) if asked else None
    said = _explain(*asked) if asked else None
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


def _quoted(error: ImportError) -> str:
    """Return the NAME of `cannot import name 'NAME' from …`, which Python 3.11 has in the message alone."""
    head, _, rest = str(error).partition("'")
    return rest.partition("'")[0] if head.startswith("cannot import name") else ""


def _user_frame(error: BaseException) -> tuple[Path, int] | None:
    ours = {"bigmodel", "hydra_plugins", *sys.stdlib_module_names}
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ours and file.is_file():
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
    """Return `OLD is NEW now`; None where `module.name` can be imported today, or never could."""
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
