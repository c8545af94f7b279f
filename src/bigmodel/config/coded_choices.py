"""Choices of Hydra's groups that stand in no YAML: our launchers with their options, and our sweeper.

Hydra imports this file at every start, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LAUNCHERS: Mapping[str, Mapping[str, Any]] = {
    "bigmodel": {},
    "slurm": {
        "executor": "slurm",
        "partition": None,
        "account": None,
        "qos": None,
        "constraint": None,
        "timeout_min": 60,
        "cpus_per_task": 1,
        "gpus_per_node": 0,
        "mem_gb": None,
        "signal_delay_s": 90,
        "max_num_timeout": 3,
    },
    "ray": {"address": "auto", "num_cpus": 1, "num_gpus": 0},
}
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
    return LAUNCHERS.get(choice, {}) if group == "hydra/launcher" else {}
