"""A new sweep: its words through Hydra's sweeper, which hands all jobs to the launcher in `hydra_plugins`.

Another launcher, as `hydra/launcher=joblib`, calls the `HydraTask` once a job in a process of its choice; ours hands it
all jobs together.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel import overrides as grammar
from bigmodel.compose import (
    Source,
    by_hydra,
    chosen_of_hydra,
    compose,
    compose_with_hydra,
    config_loader,
    refuse_long,
)
from bigmodel.errors import ConfigError, Interrupted
from bigmodel.hydra_keys import is_hydras, refused_words
from bigmodel.quoting import quoted
from bigmodel.seed_axis import with_seeds
from bigmodel.signals import Stop
from bigmodel.sweep.directory import is_sweep, make
from bigmodel.sweep.hydra_task import HydraTask

_VARIANTS_CHECKED = 50
_USUAL_PLACES = (None, "${output_dir}/sweeps", "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}")


def sweep(overrides: Sequence[str], source: Source, trust: Sequence[str], stop: Stop, seeds: str | None = None) -> int:
    """Freeze and run every combination of the values, each with `seeds` seeds if that is given. Returns 0, or the exit
    code of the first job that failed.

    Raises:
        ConfigError: a line for each mistake; nothing was started.
        Interrupted: a signal came; the jobs have saved.
    """
    stop.defer()  # composing goes through other people's `except`; whether to stop is asked between two jobs
    try:
        refuse_long(overrides)
        alone = [text for text in overrides if is_hydras(text)]
        words = [*(values[0] for values in _choices(overrides, source, trust)), *alone]
        first, hydra = compose_with_hydra("train", words, source, trust, multirun=True)
        overrides = [*overrides, *chosen_of_hydra(overrides), *_ours(hydra, overrides)]
        dry_run = bool(first.tree["dry_run"])
        if seeds is not None:
            overrides = with_seeds(int(seeds), overrides, int(first.tree["seed"]))
        own = hydra.get("sweep", {}).get("dir") not in _USUAL_PLACES
        with _directory(Path(first.tree["output_dir"]), dry_run, own) as directory:
            where = [] if own and not dry_run else [f"hydra.sweep.dir={quoted(str(directory))}"]
            kept = [text for text in overrides if not text.startswith("hydra.sweep.dir=") or not dry_run]
            with contextlib.closing(HydraTask(tuple(trust), stop, dry_run, seeds is not None)) as task:
                try:
                    by_hydra(source, ["--multirun", *kept, *where], trust, task)
                except Interrupted:
                    task.end()
                    raise
                return task.end()
    except ConfigError:
        check(overrides, source, trust)  # Hydra stops at the first mistake: find them all
        raise


def check(overrides: Sequence[str], source: Source, trust: Sequence[str] = ()) -> None:
    """Check every value of a sweep by itself, with the first value of the others.

    Raises:
        ConfigError: a line for each mistake.
    """
    problems: list[str] = []
    choices = _choices(overrides, source, trust)
    first = [values[0] for values in choices]
    variants = [first] + [
        [*first[:i], value, *first[i + 1 :]] for i, values in enumerate(choices) for value in values[1:]
    ]
    for variant in variants[:_VARIANTS_CHECKED]:
        try:
            compose("train", variant, source, trust, multirun=True)
        except ConfigError as error:
            problems += error.lines
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def _choices(overrides: Sequence[str], source: Source, trust: Sequence[str]) -> list[list[str]]:
    """The values that each override stands for; Hydra's own keys are left out. Raises ConfigError for those that cannot
    be read, and for Hydra's own where they mean nothing.
    """
    choices: list[list[str]] = []
    problems = refused_words(overrides, multirun=True)
    with config_loader(source, trust) as loader:
        for text in overrides:
            try:
                override = grammar.parse(text, loader)
                found = grammar.values(override, _VARIANTS_CHECKED)
            except ConfigError as error:
                problems += error.lines
                continue
            if not is_hydras(text):
                choices.append(found)
            elif override.is_sweep_override():
                problems.append(f"{text}: a sweep has one value of Hydra's own keys")
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return choices


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
    path = make(output_dir)
    try:
        yield path
    except BaseException:
        if not is_sweep(path) and not any(path.glob("*/")):
            for name in ("multirun.yaml", ".lock"):
                (path / name).unlink(missing_ok=True)
            for made in (path, path.parent, output_dir):
                with contextlib.suppress(OSError):
                    made.rmdir()
        raise
