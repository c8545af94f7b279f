"""A config's claims about its data, such as the number of classes, checked against the properties of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bigmodel.errors import ConfigError
from bigmodel.formatting import truncate

_SHOWN = 200  # characters of a value in a message


def check_claims(claims: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
    """Check that every claim is None or equals the property of the same key; floats may differ by rounding.

    Raises:
        ConfigError: a claim is wrong, with one line for each.
    """
    if problems := wrong_claims(claims, properties):
        raise ConfigError(*problems)


def wrong_claims(claims: Mapping[str, Any], properties: Mapping[str, Any], advice: str = "leave it null") -> list[str]:
    """Return a line for each claim that is neither None nor true of the data; `advice` says what to do about it."""
    return [
        f"dataset.{key}: got {_show(claim)}, but the data has {_show(properties[key])}; {advice}"
        for key, claim in claims.items()
        if claim is not None and not _is_same(claim, properties[key])
    ]


def _is_same(claim: Any, value: Any) -> bool:
    if isinstance(claim, (list, tuple)):
        return isinstance(value, (list, tuple)) and list(claim) == list(value)
    if isinstance(claim, float) and isinstance(value, (int, float)):
        return math.isclose(claim, value)
    return bool(claim == value)


def _show(value: Any) -> str:
    if value is None:
        return "none"
    shown = list(value) if isinstance(value, tuple) else value
    return truncate(repr(shown) if isinstance(value, str) else shown, _SHOWN)
