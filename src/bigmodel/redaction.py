"""Recognize secrets and keep them out of what is shown or written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_KEY = re.compile(
    r"(.*_)?(api_?key|secret|password|passwd|credential|(access|secret|private)_?key)s?|((api|auth|access|hf|hub)_?)?token",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"token|secret|passw|api_?key|credential|private_?key", re.IGNORECASE)
_LEAST = 6  # letters; replacing shorter values would only garble a text
_OWN = "BIGMODEL_"
_read: set[str] = set()


def is_secret_key(key: str) -> bool:
    """Return whether a config key's last part names a secret; `pad_token` does not."""
    return _KEY.fullmatch(key.rpartition(".")[2]) is not None


def is_own(name: str) -> bool:
    """Return whether an environment variable is this package's own, and no secret."""
    return name.startswith(_OWN)


def note_read(name: str) -> None:
    """Record that a config has read this variable: from now on `redact` replaces its value."""
    _read.add(name)


def redact(text: str, names: Iterable[str] = ()) -> str:
    """The text without the values of these variables of the environment, of those that a config has read, and of those
    such as `MY_TOKEN`. A variable whose name is put together from another's value goes by three stars.
    """
    known = {name: os.environ.get(name, "") for name in {*names, *_read, *filter(_VARIABLE.search, os.environ)}}
    values = [value for value in known.values() if len(value) >= _LEAST]
    for name in sorted(known, key=lambda one: -len(known[one])):  # one value may be a part of another
        value = known[name]
        if len(value) >= _LEAST:
            shown = "***" if any(one in name for one in values) else f"${{oc.env:{name}}}"
            text = text.replace(value, shown)
    return text
