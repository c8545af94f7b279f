"""The study: Optuna in memory, which is asked for a trial where a job can start and told when one has ended.

The sweep's own directory is what it is rebuilt from: the trials' overrides, the journal and the runs. So there is no
second truth to fall out of step when everything is killed, and nothing of Optuna's is read back, which for CMA-ES would
be a pickle. Sampling is a pure function of (seed, trial number, what was told so far).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from bigmodel.config import from_frozen
from bigmodel.durable import TEMPORARY
from bigmodel.errors import ConfigError
from bigmodel.search.outcome import evaluations, reached
from bigmodel.search.plan import Plan
from bigmodel.seeds import derive
from bigmodel.sweep.directory import State, Sweep, entry

STUDY = "optuna.log"
_NAME = "search"


class Search:
    """The trials of a sweep's search."""

    def __init__(self, sweep: Sweep, plan: Plan, trust: Sequence[str]) -> None:
        """Raises ConfigError: Optuna is not installed, or a frozen config is no longer one."""
        self._sweep, self._plan, self._optuna = sweep, plan, library(plan.sampler)
        self._bases = [from_frozen(sweep.path / "bases" / f"{n}.yaml", trust) for n in range(len(plan.bases))]
        self._trials: dict[int, Any] = {}
        self._told, self._hopeless = set[int](), set[int]()
        self._reported: dict[int, tuple[int, int]] = {}  # bytes that were looked at, evaluations told
        with _quiet():
            of = self._optuna.pruners
            pruners = {"none": of.NopPruner, "median": of.MedianPruner, "hyperband": of.HyperbandPruner}
            self._storage = self._optuna.storages.InMemoryStorage()
            self._study = self._optuna.create_study(
                storage=self._storage,
                study_name=_NAME,
                directions=[*plan.directions],
                pruner=pruners[plan.pruner](),
            )
        self._replay()

    def ask(self) -> int | None:
        """Freeze one more trial and return its number; None if there are enough."""
        number = len(self._sweep.entries)
        if number >= (self._sweep.trials or 0):
            return None
        given = self._ask(number, self._plan.points[number] if self._plan.sampler == "grid" else None)
        space = self._plan.space
        values = {parameter.key: parameter.value(given[parameter.name]) for parameter in space if not parameter.group}
        config = self._bases[self._plan.base(given)].with_facts(values)
        job = entry(number, [f"{name}={value}" for name, value in given.items()], config.tree)
        self._sweep.freeze([(job, config.job_yaml())], self._sweep.settings, self._sweep.trust)
        return number

    def look(self, running: Collection[int]) -> list[int]:
        """Of the jobs that run those that are to be stopped, each once: they have fallen behind."""
        found = []
        for number in sorted(running) if self._plan.pruner != "none" else ():
            if number not in self._hopeless and self._report(number) and self._trials[number].should_prune():
                self._hopeless.add(number)
                found.append(number)
        return found

    def tell(self, number: int, state: State) -> None:
        """What has become of a trial, unless a resume takes it up again.

        Raises:
            ConfigError: it is done and has not the metric that is sought.
        """
        if number in self._told or not self._sweep.is_final(state):
            return
        self._told.add(number)
        self._report(number)
        states, values = self._optuna.trial.TrialState, None
        if state.word == "done":
            values = reached(self._sweep.run_of(number), self._sweep.summary(number), self._plan)
            if values is None:
                wanted = ", ".join(self._plan.metrics)
                raise ConfigError(f"hydra.sweeper.metrics: trial {number} is done and has not all of {wanted}")
        elif state.word == "pruned":
            self._sweep.mark_pruned(number)
        kind = {"done": states.COMPLETE, "pruned": states.PRUNED}.get(state.word, states.FAIL)
        with _quiet():
            self._study.tell(self._trials[number], values, state=kind)

    def close(self) -> None:
        """Leave the study for Optuna's own tools, as its dashboard; it is never read here."""
        file, scratch = self._sweep.path / STUDY, self._sweep.path / f"{TEMPORARY}{STUDY}"
        with contextlib.suppress(OSError, ValueError), _quiet():
            for stale in file.parent.glob(f"{scratch.name}*"):  # and its lock, which would be waited for
                stale.unlink()
            storages = self._optuna.storages
            storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(scratch)))
            self._optuna.copy_study(from_study_name=_NAME, from_storage=self._storage, to_storage=storage)
            scratch.rename(file)

    def _ask(self, number: int, fixed: Mapping[str, float | str] | None) -> dict[str, float | str]:
        """A new trial's parameters; with `fixed` these."""
        with _quiet():
            if fixed is not None:
                self._study.enqueue_trial(dict(fixed))
            self._study.sampler = self._sampler(number)
            self._trials[number] = trial = self._study.ask()
            if self._plan.sampler == "cmaes":
                _ = trial.relative_params  # CMA-ES moves on by being asked, even where the answer is known
            return {parameter.name: parameter.suggest(trial) for parameter in self._plan.space}

    def _sampler(self, number: int) -> Any:
        """One for each trial: a resume then draws what an unbroken search would have."""
        seed = derive(self._plan.seed, "search", number) % 2**32
        samplers = self._optuna.samplers
        if self._plan.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True)  # what runs beside it is to be kept away from
        if self._plan.sampler == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return samplers.RandomSampler(seed=seed)

    def _replay(self) -> None:
        """Ask and tell all that the directory knows, in the order in which it happened."""
        states = self._sweep.states()
        for number, event in self._sweep.history():
            if event == "started":
                self._ask_again(number)
            elif number in self._trials:
                self.tell(number, states[number])
        for number, state in states.items():  # what was killed before the journal knew of it
            self._ask_again(number)
            self.tell(number, state)

    def _ask_again(self, number: int) -> None:
        if number in self._trials:
            return
        words = dict(word.split("=", 1) for word in self._sweep.entries[number].overrides)
        try:
            self._ask(number, {parameter.name: parameter.read(words[parameter.name]) for parameter in self._plan.space})
        except (LookupError, ValueError, TypeError) as error:
            raise ConfigError(f"resume: job {number} is not of this search: {error}") from error

    def _report(self, number: int) -> bool:
        """Tell the study of the evaluations of a job that it has not seen yet; whether there were any."""
        if self._plan.pruner == "none":
            return False
        run = self._sweep.run_of(number)
        with contextlib.suppress(OSError):
            size, (seen, told) = (run / "metrics.jsonl").stat().st_size, self._reported.get(number, (0, 0))
            if size != seen:
                values = evaluations(run, self._plan.metrics[0])
                for step in range(told, len(values)):
                    self._trials[number].report(values[step], step + 1)
                self._reported[number] = size, max(told, len(values))
                return len(values) > told
        return False


def library(sampler: str) -> Any:
    """Optuna, imported only where there is a search.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with _quiet():
            import optuna

            if sampler == "cmaes":
                import cmaes  # noqa: F401 - Optuna asks for it in the middle of the search
    except ImportError as error:
        raise ConfigError("hydra/sweeper=optuna needs Optuna: pip install 'bigmodel-train[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What Optuna calls experimental is our choice, not the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
