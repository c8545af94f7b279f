"""Take overrides apart as they are typed, without Hydra's grammar: `+optim@x=sgd` names `optim` and sets `sgd`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bigmodel.formatting import truncate
from bigmodel.redaction import is_secret_key


def override_key(text: str) -> str:
    """Return the key or group that an override names, without its sign and its package."""
    return text.lstrip("+~").partition("=")[0].partition("@")[0]


def typed_values(overrides: Sequence[str]) -> dict[str, str]:
    """Return the texts that overrides set, by key or group."""
    return {override_key(text): text.partition("=")[2] for text in overrides if "=" in text}


def _repeated_values(overrides: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the values of keys and groups that are set more than once, in the order given; the last one counts."""
    values: dict[str, list[str]] = {}
    for text in overrides:
        key, sign, value = text.lstrip("+").partition("=")
        if sign and not key.startswith("~"):
            values.setdefault(key, []).append(value)
    return {key: given for key, given in values.items() if len(given) > 1}


def describe_repeated(overrides: Sequence[str]) -> list[str]:
    """Return a line for each key that is set more than once."""
    return [
        f"{key} is given {'twice' if len(given) == 2 else f'{len(given)} times'}; {_show(key, given[-1])} counts"
        for key, given in _repeated_values(overrides).items()
    ]


def _show(key: str, value: str) -> str:
    return "the last" if is_secret_key(key) else truncate(value)
