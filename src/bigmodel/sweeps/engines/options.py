"""Names and options of the engines. Hydra loads this file at every start, so it imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bigmodel.errors import ConfigError

if TYPE_CHECKING:
    pass

LOCAL = "bigmodel"
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    LOCAL: {},
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
_CHOICES = {"executor": ("slurm", "local"), "address": ("auto", "local")}
_LEAST = {"timeout_min": 1, "cpus_per_task": 1, "gpus_per_node": 0, "signal_delay_s": 1, "max_num_timeout": 0}
_ABOVE = {"mem_gb": 0.0, "num_cpus": 0.0, "num_gpus": -1e-9}  # may be fractions
_WORD = re.compile(r"[\w.,:|&*%+-]+")  # it ends up in a line of a shell script


def validate_options(engine: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an engine, the defaults for those that are not given.

    Raises:
        ConfigError: a line for each that is wrong.
    """
    if engine not in DEFAULTS:
        raise ConfigError(f"hydra.launcher.engine: there is no {engine[:80]!r}; choices: {', '.join(DEFAULTS)}")
    known = DEFAULTS[engine]
    problems = [f"hydra.launcher.{key}: no such option of {engine}" for key in given if key not in known]
    problems += [
        f"hydra.launcher.{key}: {wrong}"
        for key, value in given.items()
        if key in known and not (value is None and known[key] is None) and (wrong := _wrong(key, value))
    ]
    if problems:
        raise ConfigError(*problems)
    return {**known, **given}


def is_local(engine: str, options: Mapping[str, Any]) -> bool:
    """Whether its jobs share the cores and GPUs of this machine with each other."""
    return engine == LOCAL or options.get("executor") == "local"


def threads_per_job(options: Mapping[str, Any]) -> int:
    """What a job is given elsewhere, as its threads."""
    return max(1, int(options.get("cpus_per_task") or options.get("num_cpus") or 1))


def _wrong(key: str, value: object) -> str:
    shown = repr(value)[:80]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _CHOICES and value not in _CHOICES[key]:
        hint = "; for the address of a cluster set RAY_ADDRESS" if key == "address" else ""
        return f"there is no {shown}; choices: {', '.join(_CHOICES[key])}{hint}"
    if key in _LEAST and not (number and value == int(value) and value >= _LEAST[key]):  # type: ignore[call-overload,operator]
        return f"must be a whole number at least {_LEAST[key]}, not {shown}"
    if key in _ABOVE and not (number and value > _ABOVE[key]):  # type: ignore[operator]
        return f"must be a number {'above' if key != 'num_gpus' else 'at least'} 0, not {shown}"
    if key in ("partition", "account", "qos", "constraint") and not _WORD.fullmatch(str(value)):
        return f"must be one word, not {shown}"
    return ""
