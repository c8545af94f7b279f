"""A new sweep: its words through Hydra's sweeper, which hands all jobs to the launcher in `hydra_plugins`.

Another launcher, as `hydra/launcher=joblib`, calls the `HydraTask` once a job in a process of its choice; ours hands it
all jobs together.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.config import override_parser as grammar
from bigmodel.config.composition import (
    ConfigSource,
    chosen_of_hydra,
    compose,
    compose_with_hydra,
    config_loader,
    reject_long_overrides,
    run_hydra_cli,
)
from bigmodel.config.config import Config
from bigmodel.config.hydra_keys import check_hydra_overrides, is_hydra_key
from bigmodel.config.location import conf_directory
from bigmodel.errors import ConfigError, Interrupted, StorageError
from bigmodel.quoting import quote
from bigmodel.runs.records import is_sweep
from bigmodel.runtime.signals import StopRequest
from bigmodel.sweeps.hydra_task import HydraTask, JobsRefused
from bigmodel.sweeps.seed_axis import add_seed_override
from bigmodel.sweeps.state.staging import staging_path, unused_path

_VARIANTS_CHECKED = 50
_USUAL_PLACES = (None, "${output_dir}/sweeps", "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}")


def run_hydra_sweep(
    overrides: Sequence[str], source: ConfigSource, trust: Sequence[str], stop: StopRequest, seeds: str | None = None
) -> int:
    """Freeze and run every combination of the values, each with `seeds` seeds if that is given. Returns 0, or the exit
    code of the first job that failed.

    Raises:
        ConfigError: a line for each mistake; nothing was started.
        Interrupted: a signal came; the jobs have saved.
    """
    stop.defer()  # composing goes through other people's `except`; whether to stop is asked between two jobs
    try:
        reject_long_overrides(overrides)
        alone = [text for text in overrides if is_hydra_key(text)]
        choices = _choices(overrides, source, trust)
        first, hydra = _first(choices, alone, source, trust)
        _refuse_two_sweeps(hydra, choices, alone, source, trust)
        overrides = [*overrides, *chosen_of_hydra(overrides), *_ours(hydra, overrides)]
        dry_run = bool(first.values["dry_run"])
        if seeds is not None:
            overrides = add_seed_override(int(seeds), overrides, int(first.values["seed"]))
        own = hydra.get("sweep", {}).get("dir") not in _USUAL_PLACES
        if own and not dry_run:
            _refuse_link(Path(str(hydra["sweep"]["dir"])) / "multirun.yaml")
        with _directory(Path(first.values["output_dir"]), dry_run, own) as directory:
            where = [] if own and not dry_run else [f"hydra.sweep.dir={quote(str(directory))}"]
            kept = [text for text in overrides if not text.startswith("hydra.sweep.dir=") or not dry_run]
            with contextlib.closing(HydraTask(tuple(trust), stop, dry_run, seeds is not None)) as task:
                try:
                    run_hydra_cli(source, ["--multirun", *kept, *where], trust, task)
                except Interrupted:
                    task.finish()
                    raise
                return task.finish()
    except JobsRefused:  # all of them are known
        raise
    except ConfigError:
        check_values(overrides, source, trust)  # Hydra stops at the first mistake: find them all
        raise


def _first(
    choices: Sequence[Sequence[str]], alone: Sequence[str], source: ConfigSource, trust: Sequence[str]
) -> tuple[Config, Any]:
    """The config of the first values, for what all jobs share, and Hydra's own. Keys of several values that do not go
    with the first choices, as a search's may, or have a wrong value, are left out: each job's config is checked later.
    """
    try:
        words = [values[0] for values in choices]
        return compose_with_hydra("train", [*words, *alone], source, trust, multirun=True)
    except ConfigError:
        kept = [values[0] for values in choices if len(values) == 1 or _is_choice(values[0])]
        if len(kept) == len(choices):
            raise
        return compose_with_hydra("train", [*kept, *alone], source, trust, multirun=True)


def _is_choice(word: str) -> bool:
    """Whether an override chooses from a group, as `model=cnn`."""
    key = word.lstrip("+").partition("=")[0].partition("@")[0]
    return "/" in key or (conf_directory() / key).is_dir()


def check_values(overrides: Sequence[str], source: ConfigSource, trust: Sequence[str] = ()) -> None:
    """Check every value of a sweep by itself, with the first value of the others.

    Raises:
        ConfigError: a line for each mistake.
    """
    problems: list[str] = []
    choices = _choices(overrides, source, trust)
    searched = any(text.startswith("hydra/sweeper=") for text in overrides)
    accepted = set[str]()  # keys that some choice of a group has
    first = [values[0] for values in choices]
    variants = [first] + [
        [*first[:i], value, *first[i + 1 :]] for i, values in enumerate(choices) for value in values[1:]
    ]
    for variant in variants[:_VARIANTS_CHECKED]:
        try:
            compose("train", variant, source, trust, multirun=True)
            accepted |= {text.partition("=")[0] for text in variant}
        except ConfigError as error:
            problems += error.lines
    if searched:  # a key may go with one choice of a group only
        problems = [line for line in problems if not (": no such" in line and line.partition(":")[0] in accepted)]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def _choices(overrides: Sequence[str], source: ConfigSource, trust: Sequence[str]) -> list[list[str]]:
    """The values that each override stands for; Hydra's own keys are left out. Raises ConfigError for those that cannot
    be read, and for Hydra's own where they mean nothing.
    """
    choices: list[list[str]] = []
    problems = check_hydra_overrides(overrides, multirun=True)
    with config_loader(source, trust) as loader:
        for text in overrides:
            try:
                override = grammar.parse_override(text, loader)
                found = grammar.swept_values(override, _VARIANTS_CHECKED)
            except ConfigError as error:
                problems += error.lines
                continue
            if not is_hydra_key(text):
                choices.append(found)
            elif override.is_sweep_override():
                problems.append(f"{text}: a sweep has one value of Hydra's own keys")
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return choices


def _refuse_link(file: Path) -> None:
    """StorageError where Hydra, which writes this file by itself, would follow a link."""
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise StorageError(f"hydra.sweep.dir: {file} is no file of its own; remove it, or choose a new directory")


def _refuse_two_sweeps(
    first: Mapping[str, Any],
    choices: Sequence[Sequence[str]],
    alone: Sequence[str],
    source: ConfigSource,
    trust: Sequence[str],
) -> None:
    """ConfigError where experiments in one sweep ask for different ones: the first would decide for all of them."""
    at = [place for place, words in enumerate(choices) if len(words) > 1 and words[0].startswith("experiment=")]
    for place in at:
        for word in choices[place][1:]:
            _, other = _first([*choices[:place], [word], *choices[place + 1 :]], alone, source, trust)
            for key in ("sweeper", "launcher", "sweep"):
                if first.get(key) != other.get(key):
                    raise ConfigError(
                        f"hydra.{key}: {choices[place][0]} and {word} ask for different sweeps; "
                        f"start one for each, or choose it on the command line"
                    )


def _ours(hydra: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Our launcher and sweeper, where the primary config chooses none, as a run's own config.yaml does not."""
    choices = hydra.get("runtime", {}).get("choices", {})
    groups = [group for group in ("hydra/launcher", "hydra/sweeper") if choices.get(group) == "basic"]
    named = {text.partition("=")[0] for text in overrides}
    return [f"{group}=bigmodel" for group in groups if group not in named]


@contextlib.contextmanager
def _directory(output_dir: Path, dry_run: bool, given: bool) -> Iterator[Path]:
    """Where Hydra's sweeper and the launcher write; nothing is left of it where no sweep came about."""
    if dry_run or given:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    path = unused_path(output_dir)
    try:
        yield path
    except BaseException:
        shutil.rmtree(staging_path(path), ignore_errors=True)
        if not is_sweep(path) and not any(place.name.isdecimal() for place in path.glob("*/")):  # no job has begun
            shutil.rmtree(path, ignore_errors=True)
            for made in (path.parent, output_dir):
                with contextlib.suppress(OSError):
                    made.rmdir()
        raise
