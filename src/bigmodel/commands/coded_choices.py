"""Choices of Hydra's groups that stand in no YAML: our launchers with their options, and our sweeper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigmodel.sweeps.engines.options import DEFAULTS

_MEANINGS = {
    "hydra/launcher": {
        "bigmodel": "the jobs run on this machine, as many at a time as jobs= says",
        "slurm": "each job is a job of Slurm (needs: pip install 'bigmodel-train[slurm]')",
        "ray": "each job is a task of Ray (needs: pip install 'bigmodel-train[ray]')",
    },
    "hydra/sweeper": {"bigmodel": "every combination of values"},
}


def coded_choices(group: str) -> Mapping[str, str]:
    """Return the names of a group's choices that stand in no YAML, each with its meaning."""
    return _MEANINGS.get(group, {})


def coded_options(group: str, choice: str) -> Mapping[str, Any]:
    """Return the keys of such a choice with their defaults."""
    return DEFAULTS.get(choice, {}) if group == "hydra/launcher" else {}
