"""What should not leave the machine: paths, names of its user and host, secrets. Left out if possible, else refused.

`without_private` takes absolute paths out of a config. `find_private` looks through the finished texts, whatever they
were made of, and is the safeguard.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigmodel.formatting import truncate
from bigmodel.redaction import redact
from bigmodel.runs.directory import user_name

_PATH = re.compile(  # at least two parts, so that `/` between words is none; not what follows `https:/`
    r"(?<![\w.:/<~-])(?:/[\w.@+-]+(?:/[\w.@+ -]*)+|~/[\w.-]+|[A-Za-z]:\\\\?[\w.-]+|file://\S+|\\\\\w+\\\w+)"
)
_TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{20,}"
    r"|xox[abpr]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|glpat-[\w-]{20,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_NOBODY = {"root", "user", "admin", "ubuntu", "debian", "localhost", "jovyan", "runner", "docker", "nobody", "home"}
_MIN_LETTERS = 3
PATH = "an absolute path"  # a kind of finding


@dataclass(frozen=True)
class Finding:
    """A piece of a text that looks private: where it is, what it is, and its letters."""

    where: str
    kind: str
    text: str


@dataclass(frozen=True)
class Names:
    """Names of this machine's user and host and the user's home. `allowed` may be in the texts anyway."""

    user: str
    host: str
    home: str
    allowed: tuple[str, ...] = ()

    @classmethod
    def of_this_machine(cls, allowed: Sequence[str] = ()) -> Names:
        host = socket.gethostname().partition(".")[0]
        return cls(user_name(), host, os.path.expanduser("~"), tuple(allowed))

    def patterns(self) -> Iterator[tuple[str, re.Pattern[str]]]:
        """Yield what each name is, and how it is found."""
        if len(self.home) > _MIN_LETTERS and Path(self.home).name not in _NOBODY:
            yield "the home directory", re.compile(re.escape(self.home))
        for kind, name in (("the user's name", self.user), ("the host's name", self.host)):
            if len(name) >= _MIN_LETTERS and name.casefold() not in _NOBODY:
                yield kind, re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE)


def without_private(node: Any, names: Names, data_dir: str = "", key: str = "") -> tuple[Any, list[str]]:
    """Return a config with each absolute path replaced by its last part, and the keys of those that were.

    What lies below `data_dir` stays below it.
    """
    if isinstance(node, Mapping):
        pairs = {
            name: without_private(item, names, data_dir, f"{key}.{name}".lstrip(".")) for name, item in node.items()
        }
        return {name: item for name, (item, _) in pairs.items()}, [one for _, keys in pairs.values() for one in keys]
    if isinstance(node, (list, tuple)):
        items = [without_private(item, names, data_dir, key) for item in node]
        return [item for item, _ in items], list(dict.fromkeys(one for _, keys in items for one in keys))
    if not isinstance(node, str) or not _is_private(node, names):
        return node, []
    path = Path(node.replace("\\", "/"))
    kept = path.relative_to(Path(data_dir).parent) if data_dir and path.is_relative_to(data_dir) else Path(path.name)
    text = kept.as_posix()
    return ("left_out" if text in ("", ".") or _is_private(text, names) else text), [key]


def _is_private(text: str, names: Names) -> bool:
    is_path = len(text) > 1 and os.path.isabs(text) and os.path.lexists(text)
    return is_path or any(True for _ in find_private("", text, names))


def find_private(where: str, text: str, names: Names, only_secrets: bool = False) -> Iterator[Finding]:
    """Yield what looks private in a text; of a vocabulary `only_secrets`, for its words may be names and paths."""
    for match in _TOKENS.finditer(text):
        yield Finding(where, "a secret", truncate(match[0], 12))
    if redact(text) != text:
        yield Finding(where, "a secret of this environment", "***")
    patterns = [] if only_secrets else [*names.patterns(), (PATH, _PATH)]
    for kind, pattern in patterns:
        for match in pattern.finditer(text):
            if match[0] not in names.allowed:
                yield Finding(where, kind, truncate(match[0], 60))


def find_in_json(where: str, node: Any, names: Names, vocabularies: Sequence[str] = ()) -> Iterator[Finding]:
    """Yield what looks private in the texts and keys of a JSON value; below `vocabularies` only secrets count."""
    if isinstance(node, Mapping):
        for name, item in node.items():
            yield from find_private(where, str(name), names)
            below = f"{where}: {name}" if ": " not in where else f"{where}.{name}"
            if name in vocabularies:
                yield from find_private(below, str(item), names, only_secrets=True)
            else:
                yield from find_in_json(truncate(below), item, names, vocabularies)
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from find_in_json(where, item, names, vocabularies)
    elif isinstance(node, str):
        yield from find_private(where, node, names)
