"""What a config reads while its interpolations are resolved, and what a config that came with a run may read.

`${a.b}` is a plain reference. `${oc.env:NAME}`, or `${oc.env:NAME,default}`, written out like this, is a reference to
the environment. Everything else calls a resolver, and could put the name of a variable or of a resolver together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from bigmodel.hidden import is_own, note_read
from bigmodel.words import clip

_ENV = re.compile(r"\$\{\s*oc\.env\s*:\s*(?P<name>\w+)\s*(?:,[^${}\\]*)?\}")
_PLAIN = re.compile(r"\$\{[^${}:\\]*\}")
_EITHER = re.compile(f"{_ENV.pattern}|{_PLAIN.pattern}")
_GRANT = "env:"
_listeners: list[set[str]] = []


def variables(raw: str) -> list[str]:
    """The variables of the environment that a text refers to, written out."""
    return [match["name"] for match in _ENV.finditer(raw)]


def is_plain(raw: str) -> bool:
    """Whether a text holds plain references and references to the environment, and calls no other resolver."""
    return "${" not in _EITHER.sub("", raw)


def grants(names: Sequence[str]) -> tuple[str, ...]:
    """The words of `trust=` that let a run's own config read these variables."""
    return tuple(dict.fromkeys(f"{_GRANT}{name}" for name in names if not is_own(name)))


def refusal(raw: str, trust: Sequence[str]) -> str | None:
    """Why a text of a config that came with a run is not resolved; None if it may be.

    The config may be a stranger's. It refers to its own keys; variables of the environment are read where the command
    line names them, as `trust=[env:NAME]`.
    """
    missing = [name for name in variables(raw) if not is_own(name) and f"{_GRANT}{name}" not in trust]
    if not is_plain(raw):
        return f"'{clip(raw)}' calls a resolver, which the config of a run may not; write the value, or ${{KEY}}"
    if missing:
        return f"reads {missing[0]} from the environment; if the run is yours: trust=[{_GRANT}{missing[0]}]"
    return None


@contextmanager
def reading() -> Iterator[set[str]]:
    """The variables of the environment, but for our own, that are read in this context."""
    names: set[str] = set()
    _listeners.append(names)
    try:
        yield names
    finally:
        _listeners.remove(names)


def _env(*arguments: Any) -> Any:
    name = str(arguments[0])
    if not is_own(name):
        note_read(name)
        for names in _listeners:
            names.add(name)
    original: Callable[..., Any] = oc.env
    return original(*arguments)


OmegaConf.register_new_resolver("oc.env", _env, replace=True)
