"""Secrets: which keys hold them, and how they are kept out of what is shown or written."""

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


def is_secret(key: str) -> bool:
    """Whether a config key's last part is named as one that holds a secret; `pad_token` is not."""
    return _KEY.fullmatch(key.rpartition(".")[2]) is not None


def hidden(text: str, names: Iterable[str] = ()) -> str:
    """The text without the values of these variables of the environment, and of those such as `MY_TOKEN`."""
    for name in {*names, *filter(_VARIABLE.search, os.environ)}:
        value = os.environ.get(name, "")
        if len(value) >= _LEAST:
            text = text.replace(value, f"${{oc.env:{name}}}")
    return text
