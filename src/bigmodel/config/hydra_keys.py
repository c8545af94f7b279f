"""Reject those of Hydra's own keys that have no effect here; those of a sweep are honored with `-m`.

A config may set these keys of the `hydra` node:

    hydra/launcher, hydra.launcher.*    with -m: who runs the jobs, and its options
    hydra/sweeper, hydra.sweeper.*      with -m: which jobs there are, and its options
    hydra.sweep.dir                     with -m: where the sweep goes

The rest has another home (`output_dir`, `--config-dir`, `-v`), is never used here, or would run code that a YAML names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bigmodel.config.override_text import override_key
from bigmodel.formatting import truncate

_OF_A_SWEEP = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper", "hydra.sweep.dir")
_INSTEAD = {
    "hydra.run": "output_dir=DIR says where runs go",
    "hydra.sweep.subdir": "the jobs of a sweep lie in its directory by number",
    "hydra.output_subdir": "a run's config.yaml lies in its directory",
    "hydra.searchpath": "--config-dir DIR lays YAML of your own over the built-in one",
    "hydra.mode": "-m starts a sweep",
    "hydra.verbose": "-v shows the traceback of an error",
    "hydra.callbacks": "it would call what a YAML names",
    "hydra/callbacks": "it would call what a YAML names",
    "hydra.job_logging": "choose listeners, as listeners=[console,csv]",
    "hydra/job_logging": "choose listeners, as listeners=[console,csv]",
    "hydra.job.chdir": "a run stays in the directory it was started in",
    "hydra.job.env_set": "set variables before the command, as NAME=value bigmodel-train",
    "hydra.help": "see --help",
    "hydra/help": "see --help",
}
_RESTING: Mapping[str, tuple[Any, ...]] = {  # as our train.yaml leaves it, or Hydra where a config has no such part
    "mode": (None,),
    "searchpath": ([],),
    "run.dir": (".", "outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}"),
    "sweep.dir": ("${output_dir}/sweeps", "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"),
    "sweep.subdir": (".", "${hydra.job.num}"),
    "callbacks": ({},),
    "env": ({}, None),
    "output_subdir": (None, ".hydra"),
    "verbose": (False,),
    "job.name": ("app",),
    "job.chdir": (None,),
    "job.env_set": ({},),
    "job.env_copy": ([],),
    "job.config": ({"override_dirname": {"kv_sep": "=", "item_sep": ",", "exclude_keys": []}},),
}
_CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "hydra/env": ("default", None),
    "hydra/callbacks": (None,),
    "hydra/job_logging": ("stdout", "default"),
    "hydra/hydra_logging": ("default",),
    "hydra/hydra_help": ("default",),
    "hydra/help": ("default",),
    "hydra/output": ("default",),
    "hydra/sweeper": ("bigmodel", "basic"),
    "hydra/launcher": ("bigmodel", "basic"),
}


def is_hydra_key(word: str) -> bool:
    """Return whether an override sets one of Hydra's own keys."""
    key = override_key(word)
    return key == "hydra" or key.startswith(("hydra.", "hydra/"))


def check_hydra_keys(words: Sequence[str], multirun: bool) -> list[str]:
    """Return a line for each wrong override of Hydra's own keys."""
    if multirun and "hydra/launcher=vectorized" in words:
        return ["hydra/launcher: vectorized was removed; leave it out, and jobs=N runs N jobs at the same time"]
    return [line for key in map(override_key, words) if (line := _refusal(key, multirun))]


def check_hydra_node(
    node: Mapping[str, Any], standard: Mapping[str, Mapping[str, Any]], multirun: bool
) -> Iterator[str]:
    """Yield a line for each wrong key of a composed `hydra` node. `standard` holds its groups as they are chosen."""
    choices = node["runtime"]["choices"]
    for group, usual in _CHOICES.items():
        if choices.get(group) not in usual and (line := _refusal(group, multirun)):
            yield line
    for key, usual in _RESTING.items():
        value: Any = node
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value not in usual and (line := _refusal(f"hydra.{key}", multirun)):
            yield line
    for name, resting in standard.items():
        given = {key: value for key, value in node.get(name, {}).items() if value != "???"}
        if given != resting and (line := _refusal(f"hydra.{name}", multirun)):
            yield line


def _refusal(key: str, multirun: bool) -> str | None:
    if any(key == one or key.startswith(f"{one}.") for one in _OF_A_SWEEP):
        return None if multirun else f"{truncate(key)}: applies to sweeps only; add -m"
    for one, instead in _INSTEAD.items():
        if key == one or key.startswith(f"{one}."):
            return f"{truncate(key)}: has no effect here; {instead}"
    return f"{truncate(key)}: has no effect here; leave it out"
