"""Take overrides apart as they are typed, without Hydra's grammar: `+optim@x=sgd` names `optim` and sets `sgd`."""

from __future__ import annotations

from collections.abc import Sequence


def override_key(text: str) -> str:
    """Return the key or group that an override names, without its sign and its package."""
    return text.lstrip("+~").partition("=")[0].partition("@")[0]


def typed_values(overrides: Sequence[str]) -> dict[str, str]:
    """Return the texts that overrides set, by key or group."""
    return {override_key(text): text.partition("=")[2] for text in overrides if "=" in text}
