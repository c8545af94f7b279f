"""Options of the engines. Hydra imports this file at every start, so it imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bigmodel.config.coded_choices import LAUNCHERS
from bigmodel.errors import ConfigError

LOCAL = "bigmodel"
_CHOICES = {"executor": ("slurm", "local"), "address": ("auto", "local")}
_MINIMUM = {"timeout_min": 1, "cpus_per_task": 1, "gpus_per_node": 0, "signal_delay_s": 1, "max_num_timeout": 0}
_ABOVE = {"mem_gb": 0.0, "num_cpus": 0.0, "num_gpus": -1e-9}  # exclusive bounds; fractions are allowed
_WORD = re.compile(r"[\w.,:|&*%+-]+")  # submitit writes it into a line of a shell script


def validate_options(engine: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of an engine: those given, and the defaults for the rest.

    Raises:
        ConfigError: a line for each invalid option.
    """
    if engine not in LAUNCHERS:
        raise ConfigError(f"hydra.launcher.engine: there is no {engine[:80]!r}; choices: {', '.join(LAUNCHERS)}")
    known = LAUNCHERS[engine]
    problems = [f"hydra.launcher.{key}: no such option of {engine}" for key in given if key not in known]
    problems += [
        f"hydra.launcher.{key}: {problem}"
        for key, value in given.items()
        if key in known and not (value is None and known[key] is None) and (problem := _problem(key, value))
    ]
    if problems:
        raise ConfigError(*problems)
    return {**known, **given}


def is_local(engine: str, options: Mapping[str, Any]) -> bool:
    """Whether the jobs run on this machine and share its cores and GPUs."""
    return engine == LOCAL or options.get("executor") == "local"


def threads_per_job(options: Mapping[str, Any]) -> int:
    """Return the number of cores that a remote engine gives each job."""
    return max(1, int(options.get("cpus_per_task") or options.get("num_cpus") or 1))


def _problem(key: str, value: object) -> str:
    """Return what is wrong with an option's value; empty if it is valid."""
    shown = repr(value)[:80]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _CHOICES and value not in _CHOICES[key]:
        hint = "; for the address of a cluster set RAY_ADDRESS" if key == "address" else ""
        return f"there is no {shown}; choices: {', '.join(_CHOICES[key])}{hint}"
    if key in _MINIMUM and not (number and value == int(value) and value >= _MINIMUM[key]):  # type: ignore[call-overload,operator]
        return f"must be a whole number at least {_MINIMUM[key]}, not {shown}"
    if key in _ABOVE and not (number and value > _ABOVE[key]):  # type: ignore[operator]
        return f"must be a number {'above' if key != 'num_gpus' else 'at least'} 0, not {shown}"
    if key in ("partition", "account", "qos", "constraint") and not _WORD.fullmatch(str(value)):
        return f"must be one word, not {shown}"
    return ""


def rank_count(device: Mapping[str, Any]) -> int:
    """Return how many ranks a job has whose config has this `device`; `auto` is one in a sweep."""
    count = device.get("count", 1)
    return 1 if count == "auto" else int(count)
