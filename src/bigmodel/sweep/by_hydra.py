"""A new sweep: its words through Hydra's sweeper, which hands all jobs to the launcher in `hydra_plugins`.

Another launcher, as `hydra/launcher=joblib`, calls the `Task` once a job in a process of its choice; ours hands it all
jobs together.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from bigmodel.compose import Source, by_hydra, compose, refuse_long
from bigmodel.config import Config, problems_of
from bigmodel.errors import BigmodelError, ConfigError, Interrupted
from bigmodel.guard import complain
from bigmodel.search.plan import count
from bigmodel.search.start import Bases, prepared
from bigmodel.search.study import Search
from bigmodel.seed_axis import with_seeds
from bigmodel.signals import Stop
from bigmodel.sweep import gpus
from bigmodel.sweep.directory import Entry, Sweep, entry, is_sweep, make, shared
from bigmodel.sweep.engines import OWN, VECTORIZED, checked, opened
from bigmodel.sweep.makes import make_of, refusal
from bigmodel.sweep.programs import settled_for
from bigmodel.sweep.run import ending, run
from bigmodel.sweep.settings import settings, settled
from bigmodel.sweep.table import jobs_in_words, listing, say
from bigmodel.words import first_line

_VARIANTS_CHECKED = 50
Composed = tuple[int, Sequence[str], DictConfig]  # number, overrides, config


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
        with _directory(Path(first.tree["output_dir"]), dry_run, own is not None) as directory:
            where = [] if own and not dry_run else [f"hydra.sweep.dir={_quoted(directory)}"]
            kept = [text for text in overrides if text != own or not dry_run]
            with contextlib.closing(Task(tuple(trust), stop, dry_run, seeds is not None)) as task:
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


@dataclass
class Task:
    """What Hydra's launchers are given."""

    trust: tuple[str, ...]
    stop: Stop
    dry_run: bool
    seeds: bool = False
    code: int = 0  # of the first job that failed
    _sweep: Sweep | None = None

    def __call__(self, composed: DictConfig) -> None:
        """One job in this process, as Hydra's own launchers want it; that it fails stops no other."""
        from bigmodel.commands import train

        hydra = HydraConfig.get()
        try:
            train.run(Config(composed, self.trust), self.stop, Path(hydra.sweep.dir) / str(hydra.job.num))
        except Interrupted as error:
            complain(error.lines)
            raise SystemExit(error.exit_code) from None
        except BigmodelError as error:
            complain([*error.lines, f"job {hydra.job.num} failed"])
            self.code = self.code or error.exit_code
        except Exception as error:  # a bug, ours or a user's model's: the other jobs are worth their results
            complain([f"job {hydra.job.num} failed: {type(error).__name__}: {error}"])
            self.code = self.code or 1

    def together(self, path: Path, jobs: Iterator[Composed], chosen: Mapping[str, Any]) -> list[float | None]:
        """All jobs, or those of one batch of a sweeper that asks in batches: frozen, run, and the best of each, which
        is None for one that failed.
        """
        engine, options = _engine(chosen)
        chosen = settings(chosen)
        if self.dry_run:
            overrides = {number: [*words] for number, words, _ in jobs}
            common = shared(overrides.values())
            for line in listing({number: [w for w in words if w not in common] for number, words in overrides.items()}):
                say(line)
            return [None] * len(overrides)
        if self._sweep is None:
            self._sweep = _new(path)
        sweep = self._sweep
        before = sweep.states()
        if chosen["on_failure"] == "stop" and any(state.word != "done" for state in before.values()):
            return [None for _ in jobs]  # of a batch before this one
        with opened(sweep, engine, options) as workers:  # ours loads torch while the configs are composed here
            frozen = self._frozen(jobs, engine == VECTORIZED)
            entries, wanted = [job for job, _ in frozen], len(before) + len(frozen)
            how = settled_for(entries, chosen["jobs"], chosen["on_failure"], wanted, engine, options)
            sweep.freeze(frozen, how, self.trust)
            numbers = [job.number for job in entries]
            run(sweep, workers, numbers, self.trust, self.stop)
        states = sweep.states(numbers)
        return [state.value if state.word == "done" else None for state in states.values()]

    def search(
        self,
        path: Path,
        chosen: Mapping[str, Any],
        given: Mapping[str, Any],
        overrides: Mapping[str, Any],
        groups: set[str],
        bases: Bases,
    ) -> None:
        """A search, of what `prepared` takes: frozen, then run. Raises as `prepared`; nothing was made then."""
        if self.seeds:
            raise ConfigError("seeds: not with a search; train its best trial with several seeds")
        engine, options = _engine(chosen)
        if engine == VECTORIZED:
            raise ConfigError(
                "hydra/launcher=vectorized: a search asks for its trials one by one; leave the launcher out"
            )
        chosen = settings(chosen)
        plan, configs = prepared(given, overrides, groups, bases, self.trust)
        trials = plan.trials(count(given["n_trials"]))
        if self.dry_run:
            for line in plan.listing(trials):
                say(line)
            return
        path.mkdir(parents=True, exist_ok=True)
        self._sweep = sweep = _new(path)
        with opened(sweep, engine, options) as workers:
            plan.write(path, [config.open_yaml() for config in configs])
            kinds = {str(config.tree["device"].get("kind", "cpu")) for config in configs}
            sweep.trials = trials
            how = settled(chosen["jobs"], chosen["on_failure"], kinds, trials, len(gpus.visible()), engine, options)
            sweep.freeze([], how, self.trust)
            run(sweep, workers, [], self.trust, self.stop, Search(sweep, plan, self.trust))

    def end(self) -> int:
        """Once Hydra is through: tell what has become of all jobs, and return the exit code. Raises as `ending`."""
        if self._sweep is not None and is_sweep(self._sweep.path):
            self.code = ending(self._sweep, self.stop, self.trust)
        return self.code

    def close(self) -> None:
        """Let another process take the sweep up."""
        if self._sweep is not None:
            self._sweep.lock.release()

    def _frozen(self, jobs: Iterator[Composed], as_one: bool) -> list[tuple[Entry, str]]:
        """ConfigError unless every job's config is right. Where they are to be `as_one`, each has its make."""
        frozen, problems, apart = [], list[str](), dict[str, list[int]]()
        for number, words, composed in jobs:
            if self.stop():
                raise Interrupted(f"stopped by {self.stop.name}; nothing more was started")
            config = Config(composed, self.trust)
            problems += problems_of(config, "train")
            if not problems:
                why = refusal(config.tree) if as_one else None
                if why:
                    apart.setdefault(why, []).append(number)
                made = make_of(config.tree) if as_one and not why else ""
                frozen.append((entry(number, words, config.tree, made), config.yaml()))
        if problems:
            raise ConfigError(*dict.fromkeys(problems))
        for why, numbers in apart.items():
            say(f"{jobs_in_words(numbers)} not as one program with others: {why}")
        return frozen


def _engine(chosen: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    engine = str(chosen.get("engine", OWN))
    return engine, checked(engine, chosen.get("options", {}))


def _new(path: Path) -> Sweep:
    if is_sweep(path):
        raise ConfigError(f"hydra.sweep.dir: a sweep is there already; to go on with it: -m resume={path}")
    return Sweep(path)


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
