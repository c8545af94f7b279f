"""Start a new sweep: check its overrides, then let Hydra's sweeper hand all jobs to the launcher in `hydra_plugins`.

Another launcher, such as `hydra/launcher=joblib`, calls `HydraTask` once for each job in a process of its choice; ours
passes all jobs in one call.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigmodel.commands.command_line import sets_seed
from bigmodel.config.composition import compose_with_hydra, config_loader, run_hydra_cli
from bigmodel.config.config import Config
from bigmodel.config.location import ConfigSource, conf_directory
from bigmodel.config.override_parser import parse_override, swept_values
from bigmodel.config.override_text import override_key
from bigmodel.errors import ConfigError, Interrupted, StorageError
from bigmodel.formatting import truncate
from bigmodel.quoting import quote
from bigmodel.runs.records import is_sweep
from bigmodel.runtime.signals import StopRequest
from bigmodel.sweeps.hydra_task import HydraTask, JobsRefused, own_overrides
from bigmodel.sweeps.state.staging import staging_path, unused_path

_MAX_VARIANTS = 50  # combinations that are checked before Hydra composes all of them
_DEFAULT_DIRECTORIES = (None, "${output_dir}/sweeps", "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}")


def run_hydra_sweep(
    overrides: Sequence[str],
    hydra_words: Sequence[str],
    source: ConfigSource,
    trust: Sequence[str],
    stop: StopRequest,
    seeds: str | None = None,
    report: Callable[[str], object] = lambda text: None,
) -> int:
    """Run every combination of the values, each with `seeds` seeds if given; `report` gets "" once these are known.

    `hydra_words` are overrides of Hydra's own keys. Returns 0, or the exit code of the first job that failed.

    Raises:
        ConfigError: a line for each mistake; nothing was started.
        Interrupted: a signal came; the jobs have saved.
    """
    stop.defer()  # Hydra would catch an exception raised in its code; the signal is polled between two jobs instead
    axes = _parse_axes(overrides, hydra_words, source, trust)
    try:
        first, hydra = axes.compose_first()
        axes.reject_conflicting_experiments(hydra)
        hydra_words = [*hydra_words, *_plugins(hydra, hydra_words)]
        if seeds is not None:
            overrides = _add_seed_override(int(seeds), overrides, int(first.values["seed"]))
        task = HydraTask(tuple(trust), stop, bool(first.values["dry_run"]), seeds is not None, first.notes)
        with _sweep_directory(first, hydra, [*overrides, *hydra_words]) as placed, contextlib.closing(task):
            report("")
            try:
                run_hydra_cli(source, ["--multirun", *placed], trust, task)
            except Interrupted:
                task.finish()
                raise
            return task.finish()
    except JobsRefused:  # it holds all mistakes
        raise
    except ConfigError:
        is_search = any(text.startswith("hydra/sweeper=") for text in hydra_words)
        axes.check(is_search)  # Hydra stops at the first mistake: find them all
        raise


@dataclass(frozen=True)
class _Axes:
    """The values that each override of a sweep stands for; overrides of Hydra's own keys are kept apart."""

    values: tuple[tuple[str, ...], ...]
    hydra: tuple[str, ...]
    source: ConfigSource
    trust: Sequence[str]

    def compose_first(self, axis: int = -1, value: str = "") -> tuple[Config, Any]:
        """Compose the config of the first values, and Hydra's own; `value` replaces the first one of `axis`.

        Where these do not go together, as in a search, keys with several values are left out, except choices of a
        config group: each job's config is checked later.
        """
        first = [value if index == axis else values[0] for index, values in enumerate(self.values)]
        try:
            return self._compose(first)
        except ConfigError:
            kept = [
                text for text, values in zip(first, self.values, strict=True) if len(values) == 1 or _is_choice(text)
            ]
            if len(kept) == len(first):
                raise
            return self._compose(kept)

    def _variants(self) -> list[list[str]]:
        """Return the first values, then each other value with the first ones of the other keys."""
        first = [values[0] for values in self.values]
        others = [
            [*first[:index], value, *first[index + 1 :]]
            for index, values in enumerate(self.values)
            for value in values[1:]
        ]
        return [first, *others]

    def check(self, is_search: bool) -> None:
        """Check every value, each with the first value of the other keys; in a search some choices may lack a key.

        Raises:
            ConfigError: a line for each mistake.
        """
        numbers_by_problem: dict[str, list[int]] = {}
        valid_keys = set[str]()
        variants = dict(enumerate(self._variants()[:_MAX_VARIANTS]))
        for number, variant in variants.items():
            try:
                self._compose(variant)
                valid_keys |= set(map(override_key, variant))
            except ConfigError as error:
                for line in error.lines:
                    numbers_by_problem.setdefault(line, []).append(number)
        lines = []
        for line, numbers in numbers_by_problem.items():
            if not (is_search and ": no such" in line and line.partition(":")[0] in valid_keys):
                own = truncate(", ".join(own_overrides(line, numbers, variants)))
                lines.append(f"{own}: {line}" if own else line)
        if lines:
            raise ConfigError(*lines)

    def reject_conflicting_experiments(self, hydra: Mapping[str, Any]) -> None:
        """Raise ConfigError if two experiments of one sweep configure it differently: the first would win silently."""
        for axis, values in enumerate(self.values):
            if not values[0].startswith("experiment="):
                continue
            for value in values[1:]:
                _, other = self.compose_first(axis, value)
                for key in ("sweeper", "launcher", "sweep"):
                    if hydra.get(key) != other.get(key):
                        raise ConfigError(
                            f"hydra.{key}: {values[0]} and {value} ask for different sweeps; "
                            f"start one for each, or choose it on the command line"
                        )

    def _compose(self, overrides: Sequence[str]) -> tuple[Config, Any]:
        return compose_with_hydra("train", overrides, self.source, self.trust, True, self.hydra)


def _parse_axes(
    overrides: Sequence[str], hydra_words: Sequence[str], source: ConfigSource, trust: Sequence[str]
) -> _Axes:
    """Parse overrides with Hydra's grammar.

    Raises:
        ConfigError: a line for each that cannot be parsed, and for several values of one of Hydra's own keys.
    """
    problems: list[str] = []
    axes: list[tuple[str, ...]] = []
    with config_loader(source, trust) as loader:
        for text in (*overrides, *hydra_words):
            try:
                override = parse_override(text, loader)
                values = swept_values(override, _MAX_VARIANTS)
            except ConfigError as error:
                problems += error.lines
                continue
            if text in overrides:
                axes.append(tuple(values))
            elif override.is_sweep_override():
                problems.append(f"{text}: a sweep has one value of Hydra's own keys")
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return _Axes(tuple(axes), tuple(hydra_words), source, trust)


def _is_choice(text: str) -> bool:
    """Whether an override chooses from a config group, such as `model=cnn`."""
    key = override_key(text)
    return "/" in key or (conf_directory() / key).is_dir()


def _plugins(hydra: Mapping[str, Any], hydra_words: Sequence[str]) -> list[str]:
    """Return overrides that choose the launcher and the sweeper: ours, unless the YAML or the user chose others."""
    choices = hydra.get("runtime", {}).get("choices", {})
    typed = set(map(override_key, hydra_words))
    chosen = {group: choices.get(group) for group in ("hydra/launcher", "hydra/sweeper") if group not in typed}
    usual = {"basic": "bigmodel"}  # Hydra's, where the user's root file leaves it
    return [f"{group}={usual.get(name, name)}" for group, name in chosen.items() if name not in (None, "bigmodel")]


@contextlib.contextmanager
def _sweep_directory(first: Config, hydra: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[list[str]]:
    """Yield the overrides with a `hydra.sweep.dir` in which Hydra's sweeper and the launcher write.

    A dry run gets a temporary directory, which is removed. If no job has started, nothing is left of a new directory.

    Raises:
        StorageError: Hydra would follow a link there.
    """
    given, dry_run = hydra.get("sweep", {}).get("dir"), bool(first.values["dry_run"])
    is_own = given not in _DEFAULT_DIRECTORIES
    if is_own and not dry_run:
        _reject_link(Path(str(given)) / "multirun.yaml")
        yield [*overrides]
        return
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            kept = [text for text in overrides if not text.startswith("hydra.sweep.dir=")]
            yield [*kept, f"hydra.sweep.dir={quote(scratch)}"]
        return
    output_dir = Path(first.values["output_dir"])
    path = unused_path(output_dir)
    try:
        yield [*overrides, f"hydra.sweep.dir={quote(str(path))}"]
    except BaseException:
        shutil.rmtree(staging_path(path), ignore_errors=True)
        has_jobs = any(folder.name.isdecimal() for folder in path.glob("*/"))
        if not is_sweep(path) and not has_jobs:
            shutil.rmtree(path, ignore_errors=True)
            for parent in (path.parent, output_dir):
                with contextlib.suppress(OSError):
                    parent.rmdir()
        raise


def _reject_link(file: Path) -> None:
    """Raise StorageError if Hydra, which writes this file itself, would follow a link."""
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise StorageError(
            f"hydra.sweep.dir: {file} is a link or no regular file; remove it, or choose a new directory"
        )


def _add_seed_override(num_seeds: int, overrides: Sequence[str], first: int) -> list[str]:
    """Return the overrides with the axis as the last, fastest one, instead of a single `seed=3`."""
    axis = ",".join(str(first + index) for index in range(num_seeds))
    return [*(text for text in overrides if not sets_seed(text)), f"seed={axis}"]
