"""What Hydra's launchers and sweepers are given: the jobs of a sweep, one by one, all together or as a search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bigmodel.commands.exit_codes import complain
from bigmodel.config.config import Config, checked
from bigmodel.errors import BigmodelError, ConfigError, Interrupted
from bigmodel.runs.records import is_sweep
from bigmodel.runtime import gpus
from bigmodel.runtime.signals import Stop
from bigmodel.sweeps.engines.launch import opened
from bigmodel.sweeps.engines.options import OWN, on_this_machine
from bigmodel.sweeps.engines.options import checked as checked_options
from bigmodel.sweeps.run import ending, run
from bigmodel.sweeps.search.plan import count
from bigmodel.sweeps.search.start import Bases, prepared
from bigmodel.sweeps.search.study import Search
from bigmodel.sweeps.state.directory import Entry, Sweep, entry, shared
from bigmodel.sweeps.state.settings import settings, settled
from bigmodel.sweeps.state.staging import new
from bigmodel.sweeps.table import listing, say

Composed = tuple[int, Sequence[str], DictConfig]  # number, overrides, config


@dataclass
class HydraTask:
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
            train.run(checked(composed, "train", self.trust)[0], self.stop, Path(hydra.sweep.dir) / str(hydra.job.num))
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
            composed = [(number, [*words], _own(tree)) for number, words, tree in jobs]
            overrides = {number: words for number, words, _ in composed}
            common = shared(overrides.values())
            for line in listing({number: [w for w in words if w not in common] for number, words in overrides.items()}):
                print(line)  # the command's answer, which must not be lost
            _tell_repeats((number, text) for number, _, text in composed)
            return [None] * len(overrides)
        if self._sweep is None:
            self._sweep = new(path, engine == OWN)
        sweep = self._sweep
        before = sweep.states()
        if chosen["on_failure"] == "stop" and any(state.word != "done" for state in before.values()):
            return [None for _ in jobs]  # of a batch before this one
        with opened(
            sweep.path, sweep.lock.fileno(), engine, options
        ) as workers:  # ours loads torch while the configs are composed here
            frozen = self._frozen(jobs)
            entries, wanted = [job for job, _ in frozen], len(before) + len(frozen)
            kinds = {job.device for job in entries}
            how = settled(
                chosen["jobs"], chosen["on_failure"], kinds, wanted, len(gpus.visible_gpus()), engine, options
            )
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
        engine, options = _engine(chosen)
        chosen = settings(chosen)
        here = on_this_machine(engine, options)
        plan, configs, doubts = prepared(given, overrides, groups, bases, self.trust, self.seeds, here)
        for config in configs:
            self._grant(config)
        texts = [config.open_yaml() for config in configs]
        trials = plan.trials(count(given["n_trials"]))
        for line in plan.listing(trials) if self.dry_run else ():
            print(line)  # the command's answer, which must not be lost
        for line in (*plan.fewer(count(given["n_trials"])), *(f"warning: {doubt}" for doubt in doubts)):
            say(line)
        if self.dry_run:
            return
        self._sweep = sweep = new(path, engine == OWN)
        with opened(sweep.path, sweep.lock.fileno(), engine, options) as workers:
            plan.write(sweep.path, texts)
            kinds = {str(config.tree["device"].get("kind", "cpu")) for config in configs}
            sweep.trials = jobs = trials * plan.width
            how = settled(chosen["jobs"], chosen["on_failure"], kinds, jobs, len(gpus.visible_gpus()), engine, options)
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
            self._sweep.release()

    def _grant(self, config: Config) -> None:
        """Let the jobs read what their configs, which are the user's own, refer to in the environment."""
        self.trust = tuple(dict.fromkeys((*self.trust, *config.grants)))

    def _frozen(self, jobs: Iterator[Composed]) -> list[tuple[Entry, str]]:
        """ConfigError unless every job's config is right."""
        frozen, problems = [], list[str]()
        for number, words, composed in jobs:
            if self.stop():
                raise Interrupted(f"stopped by {self.stop.name}; nothing more was started")
            config, wrong = checked(composed, "train", self.trust)
            problems += wrong
            if not problems:
                self._grant(config)
                frozen.append((entry(number, words, config.tree), config.job_yaml()))
        if problems:
            raise ConfigError(*dict.fromkeys(problems))
        _tell_repeats((job.number, text) for job, text in frozen)
        return frozen


def _own(composed: DictConfig) -> str:
    """A composed config without Hydra's keys, which number the job."""
    return repr(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))


def _tell_repeats(jobs: Iterable[tuple[int, str]]) -> None:
    first: dict[str, int] = {}
    for number, text in jobs:
        if first.setdefault(text, number) != number:
            say(f"job {number} is the same configuration as job {first[text]}")


def _engine(chosen: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    engine = str(chosen.get("engine", OWN))
    return engine, checked_options(engine, chosen.get("options", {}))
