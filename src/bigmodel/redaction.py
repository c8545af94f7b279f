"""Secrets: which keys and variables hold them, and how they are kept out of what is shown or written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

_SECRET_KEY = re.compile(  # strict: a config with a plain-text value under such a key is refused
    r"(.*_)?(api_?key|secret|password|passwd|credential|(access|secret|private)_?key)s?|((api|auth|access|hf|hub)_?)?token",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(  # loose: a false alarm only stars out a word of a variable or a command line
    r"token(?!iz)|secret|passw|api_?key|credential|private_?key", re.IGNORECASE
)
_MIN_LETTERS = 6  # replacing shorter values would garble a text
_OWN_PREFIX = "BIGMODEL_"
_read_by_config: set[str] = set()


def is_secret_key(key: str) -> bool:
    """Return whether the last part of a config key names a secret; `pad_token` does not."""
    return _SECRET_KEY.fullmatch(key.rpartition(".")[2]) is not None


def is_own(name: str) -> bool:
    """Return whether an environment variable is this package's own, and no secret."""
    return name.startswith(_OWN_PREFIX)


def note_read(name: str) -> None:
    """Record that a config has read this variable: its value is redacted from now on."""
    _read_by_config.add(name)


def redact(text: str, names: Iterable[str] = ()) -> str:
    """Replace the values of secret environment variables with `${oc.env:NAME}`.

    Secret are the variables in `names`, those that a config has read, and those with a name such as `MY_TOKEN`. Three
    stars replace a value whose variable's name contains another secret value.
    """
    secret = {*names, *_read_by_config, *filter(_SECRET_NAME.search, os.environ)}
    values = {name: value for name in secret if len(value := os.environ.get(name, "")) >= _MIN_LETTERS}
    for name in sorted(values, key=lambda name: -len(values[name])):  # longest first: one may be a part of another
        leaks = any(value in name for value in values.values())
        text = text.replace(values[name], "***" if leaks else f"${{oc.env:{name}}}")
    return text


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the values of keys that name a secret replaced by three stars."""
    shown = []
    for argument in arguments:
        key, sign, _ = argument.partition("=")
        shown.append(f"{key}=***" if sign and _SECRET_NAME.search(key) else argument)
    return shown
