"""Find and restrict what a config reads while its interpolations are resolved, above all one that came with a run.

`${a.b}` is a plain reference. `${oc.env:NAME}`, or `${oc.env:NAME,default}`, written out like this, is a reference to
the environment. Everything else calls a resolver, and could put the name of a variable or of a resolver together.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.resolvers import oc

from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate
from bigmodel.redaction import is_own, note_read

_ENV = re.compile(r"\$\{\s*oc\.env\s*:\s*(?P<name>\w+)\s*(?:,[^${}\\]*)?\}")
_PLAIN = re.compile(r"\$\{[^${}:\\]*\}")
_EITHER = re.compile(f"{_ENV.pattern}|{_PLAIN.pattern}")
_GRANT = "env:"
_listeners: list[set[str]] = []


def env_variables(raw: str) -> list[str]:
    """Return the environment variables that a text names in `${oc.env:...}`."""
    return [match["name"] for match in _ENV.finditer(raw)]


def is_plain(raw: str) -> bool:
    """Return whether a text calls no resolver but `oc.env`."""
    return "${" not in _EITHER.sub("", raw)


def trust_for_variables(names: Sequence[str]) -> tuple[str, ...]:
    """Return the words of `trust=` that let a run's own config read these variables."""
    return tuple(dict.fromkeys(f"{_GRANT}{name}" for name in names if not is_own(name)))


def why_not_resolved(raw: str, trust: Sequence[str]) -> str | None:
    """Explain why a text of a config that came with a run is not resolved; None if it may be.

    The config may be a stranger's. It refers to its own keys; variables of the environment are read where the command
    line names them, as `trust=[env:NAME]`.
    """
    missing = [name for name in env_variables(raw) if not is_own(name) and f"{_GRANT}{name}" not in trust]
    if not is_plain(raw):
        return f"'{truncate(raw)}' calls a resolver, which the config of a run may not; write the value, or ${{KEY}}"
    if missing:
        return f"reads {missing[0]} from the environment; if the run is yours: trust=[{_GRANT}{missing[0]}]"
    return None


@contextmanager
def record_env_reads() -> Iterator[set[str]]:
    """Record the environment variables, except this package's, that are read in this context."""
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


def iter_leaves(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and raw values; interpolations are not resolved."""
    if isinstance(node, (DictConfig, ListConfig)) and not node._is_none() and not node._is_interpolation():
        keys: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
        for key in keys:
            if path or key != "hydra":  # Hydra's own keys quote the command line
                yield from iter_leaves(f"{path}.{key}" if path else str(key), node._get_node(key))
    elif isinstance(node, Node):
        yield path, node._value()


def resolve(composed: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def resolve_but_secrets(composed: DictConfig, spell: Callable[[str], str]) -> Any:
    """Resolve everything except references to the environment, also where an interpolation leads to one."""
    masked = composed.copy()
    mark = secrets.token_hex(8)
    held: dict[str, str] = {}

    def mask(node: Any) -> None:
        if not isinstance(node, (DictConfig, ListConfig)) or node._is_none() or node._is_interpolation():
            return
        keys: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
        for key in keys:
            if node is masked and key == "hydra":
                continue
            child = node._get_node(key)
            raw = child._value() if child is not None and not isinstance(child, list) else None
            if isinstance(raw, str) and any(not is_own(name) for name in env_variables(raw)):
                held[f"<<{mark}-{len(held)}>>"] = raw
                node[key] = f"<<{mark}-{len(held) - 1}>>"
            else:
                mask(child)

    OmegaConf.set_struct(masked, False)
    mask(masked)
    places = re.compile(f"<<{mark}-\\d+>>")

    def unmask(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: unmask(item) for key, item in value.items()}
        if isinstance(value, list):
            return [unmask(item) for item in value]
        return places.sub(lambda match: held[match[0]], spell(value)) if isinstance(value, str) else value

    return unmask(resolve(masked))


def reject_resolvers(file: Path, config: DictConfig, trust: Sequence[str]) -> None:
    """Reject resolver calls in a config that came with a run, maybe from a stranger, unless `trust` grants them.

    Raises:
        ConfigError: a line for each key that would read something else.
    """
    problems = [f"{file}: hydra: no such setting"] if "hydra" in config else []
    for path, raw in iter_leaves("", config):
        if isinstance(raw, str) and "${" in raw and (why := why_not_resolved(raw, trust)):
            problems.append(f"{file}: {path}: {why}")
    if problems:
        raise ConfigError(*problems)


OmegaConf.register_new_resolver("oc.env", _env, replace=True)
