"""A new sweep: its words through Hydra's sweeper, which hands all jobs to the launcher in `hydra_plugins`.

Another launcher, as `hydra/launcher=joblib`, calls the `HydraTask` once a job in a process of its choice; ours hands it
all jobs together.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from bigmodel.compose import Source, by_hydra, compose, refuse_long
from bigmodel.errors import ConfigError, Interrupted, StorageError
from bigmodel.seed_axis import with_seeds
from bigmodel.signals import Stop
from bigmodel.sweep.directory import is_sweep, make
from bigmodel.sweep.hydra_task import HydraTask
from bigmodel.words import first_line

_VARIANTS_CHECKED = 50


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
        first = compose("train", [values[0] for values in _choices(overrides)], source, trust)
        dry_run = bool(first.tree["dry_run"])
        if seeds is not None:
            overrides = with_seeds(int(seeds), overrides, int(first.tree["seed"]))
        own = next((text for text in overrides if text.startswith("hydra.sweep.dir=")), None)
        if own is not None and not dry_run:
            _refuse_link(Path(own.partition("=")[2].strip("'\"")) / "multirun.yaml")
        with _directory(Path(first.tree["output_dir"]), dry_run, own is not None) as directory:
            where = [] if own and not dry_run else [f"hydra.sweep.dir={_quoted(directory)}"]
            kept = [text for text in overrides if text != own or not dry_run]
            with contextlib.closing(HydraTask(tuple(trust), stop, dry_run, seeds is not None)) as task:
                try:
                    by_hydra(source, ["--multirun", *kept, *where], task)
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
    choices = _choices(overrides)
    first = [values[0] for values in choices]
    variants = [first] + [
        [*first[:i], value, *first[i + 1 :]] for i, values in enumerate(choices) for value in values[1:]
    ]
    for variant in variants[:_VARIANTS_CHECKED]:
        try:
            compose("train", variant, source, trust)
        except ConfigError as error:
            problems += error.lines
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def _choices(overrides: Sequence[str]) -> list[list[str]]:
    """The values that each override stands for. Raises ConfigError for those that cannot be read."""
    choices: list[list[str]] = []
    problems: list[str] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
            if text.startswith(("hydra.", "hydra/")):  # Hydra's own, or the launcher's, who check them
                continue
            values = [text]
            if override.is_interval_sweep():
                ends: Any = override.value()
                values = [f"{override.get_key_element()}={end}" for end in (ends.start, ends.end)]
            elif override.is_discrete_sweep():
                several = islice(override.sweep_string_iterator(), _VARIANTS_CHECKED)
                values = [f"{override.get_key_element()}={value}" for value in several]
        except (HydraException, ValueError, RecursionError) as error:
            problems.append(first_line(error))
            continue
        if values:
            choices.append(values)
        else:
            problems.append(f"{text}: there is no value in it")
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return choices


def _refuse_link(file: Path) -> None:
    """StorageError where Hydra, which writes this file by itself, would follow a link."""
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise StorageError(f"hydra.sweep.dir: {file} is no file of its own; remove it, or choose a new directory")


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


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
