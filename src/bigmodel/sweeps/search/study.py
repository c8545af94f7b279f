"""The study: Optuna in memory, which is asked for a trial where a job can start and told when one has ended.

The sweep's own directory is what it is rebuilt from: the trials' overrides, the journal and the runs. So there is no
second truth to fall out of step when everything is killed, and nothing of Optuna's is read back, which for CMA-ES would
be a pickle. Sampling is a pure function of (seed, trial number, what was told so far).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from bigmodel.config.saved import load_snapshot
from bigmodel.errors import ConfigError, DivergedError
from bigmodel.safe_files import replacing
from bigmodel.seeds import derive
from bigmodel.sweeps.search.outcome import evaluations, mean_values
from bigmodel.sweeps.search.plan import SearchPlan
from bigmodel.sweeps.state.directory import JobProgress, SweepDirectory, job_spec

STUDY = "optuna.log"
_NAME = "search"
_REPEATED = "repeated"  # in the journal: a draw that an earlier trial had been
_DRAWS = 10
_WORST = {"minimize": math.inf, "maximize": -math.inf}


class OptunaSearch:
    """The trials of a sweep's search."""

    def __init__(self, sweep: SweepDirectory, plan: SearchPlan, trust: Sequence[str]) -> None:
        """Raises ConfigError: Optuna is not installed, or a frozen config is no longer one."""
        self._sweep, self._plan, self._optuna = sweep, plan, import_optuna(plan.sampler)
        self._bases = [load_snapshot(sweep.path / "bases" / f"{n}.yaml", trust) for n in range(len(plan.bases))]
        self._trials: dict[int, Any] = {}
        self._told, self._hopeless = set[int](), set[int]()
        self._ended: dict[int, dict[int, JobProgress]] = {}
        self._seen: dict[str, int] = {}
        self._remarks: list[str] = []
        sweep.width = plan.width
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
        number = len(self._sweep.entries) // self._plan.width
        if number * self._plan.width >= (self._sweep.trials or 0):
            return None
        found = self._new(number)
        if found is None:  # a search of an older version may have tried some twice
            self._remarks.append("all configurations of the space have been tried")
            return None
        given, repeats = found
        space = self._plan.space
        values = {one.key: one.value(given[one.name]) for one in space if not one.group and one.name in given}
        config = self._bases[self._plan.base_index(given)].with_values(values)
        words = [f"{name}={value}" for name, value in given.items()]
        frozen = []
        for job, seed in zip(self.jobs(number), self._plan.seeds or (None,), strict=True):
            own = config if seed is None else config.with_values({"seed": seed})
            frozen.append(
                (job_spec(job, words if seed is None else [*words, f"seed={seed}"], own.values), own.to_job_yaml())
            )
        self._sweep.snapshot_configs(frozen, self._sweep.settings, self._sweep.trust)
        for _ in range(repeats):
            self._sweep.append_journal(self.jobs(number)[0], _REPEATED)
        return number

    def jobs(self, number: int) -> range:
        """The sweep's jobs that are this trial."""
        return range(number * self._plan.width, (number + 1) * self._plan.width)

    def remarks(self) -> list[str]:
        """Return the remarks on trials that were asked for since the last call, and forget them."""
        told, self._remarks = self._remarks, []
        return told

    def trials_to_prune(self, running: Collection[int]) -> list[int]:
        """Of the jobs that run those that are to be stopped, each once: they have fallen behind."""
        found = []
        for number in sorted(running) if self._plan.pruner != "none" else ():
            if number not in self._hopeless and self._report(number) and self._trials[number].should_prune():
                self._hopeless.add(number)
                found.append(number)
        return found

    def tell(self, job: int, state: JobProgress) -> None:
        """What has become of a job, unless a resume takes it up again. Once all jobs of a trial have ended the study is
        told. That one diverged is an answer: the worst there is, or nothing would be learnt from it.

        Raises:
            ConfigError: it is done and has not the metric that is sought.
        """
        number = job // self._plan.width
        if number in self._told or not self._sweep.is_final(state):
            return
        ended = self._ended.setdefault(number, {})
        ended[job] = state
        if len(ended) < self._plan.width:
            return
        self._told.add(number)
        self._report(number)
        states, values = self._optuna.trial.TrialState, None
        words, kind = {each.status for each in ended.values()}, states.FAIL
        if any(each.code == DivergedError.exit_code for each in ended.values()):
            kind, values = states.COMPLETE, tuple(_WORST[way] for way in self._plan.directions)
        elif words == {"done"}:
            kind, values = states.COMPLETE, mean_values(self._sweep, self._plan, [*ended])
            if values is None:
                wanted = ", ".join(self._plan.metrics)
                raise ConfigError(f"hydra.sweeper.metrics: trial {number} is done and has not all of {wanted}")
        elif "pruned" in words:
            self._sweep.mark_pruned(job)
            kind = states.PRUNED
        with _quiet():
            self._study.tell(self._trials[number], values, state=kind)

    def close(self) -> None:
        """Leave the study for Optuna's own tools, as its dashboard; it is never read here."""
        with contextlib.suppress(OSError, ValueError), _quiet(), replacing(self._sweep.path / STUDY) as scratch:
            storages = self._optuna.storages
            storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(scratch)))
            self._optuna.copy_study(from_study_name=_NAME, from_storage=self._storage, to_storage=storage)

    def _new(self, number: int) -> tuple[dict[str, float | str], int] | None:
        """A new trial's parameters, and how often they were drawn anew because an earlier trial has them; None where
        nothing is left.
        """
        points = self._plan.points
        if points and all(self._plan.identity(point) in self._seen for point in points):
            return None
        if self._plan.sampler == "grid":
            return (self._ask(number, points[number]), 0) if number < len(points) else None
        earlier: dict[int, None] = {}
        for again in range(_DRAWS):
            given = self._ask(number, None, again)
            same = self._seen.get(self._plan.identity(given))
            if same is None:
                break
            earlier[same] = None
            if again == _DRAWS - 1 and not points:
                self._remarks.append(f"trial {number} repeats trial {same}: {_DRAWS} draws gave nothing new")
                break
            self._drop(number)
        else:  # of all that is left any is as good
            left = [point for point in points if self._plan.identity(point) not in self._seen]
            given = self._ask(number, left[derive(self._plan.seed, "search", number, "left") % len(left)])
            again = _DRAWS
        self._seen[self._plan.identity(given)] = number
        if again and earlier:
            names = ", ".join(map(str, earlier))
            self._remarks.append(f"trial {number} was drawn anew: what was drawn first is trial {names} already")
        return given, again

    def _drop(self, number: int) -> None:
        """Forget what was asked for last: a failed trial teaches nothing."""
        with _quiet():
            self._study.tell(self._trials.pop(number), state=self._optuna.trial.TrialState.FAIL)

    def _ask(self, number: int, fixed: Mapping[str, float | str] | None, again: int = 0) -> dict[str, float | str]:
        """A new trial's parameters; with `fixed` these."""
        with _quiet():
            if fixed is not None:
                self._study.enqueue_trial(dict(fixed))
            self._study.sampler = self._sampler(number, again)
            self._trials[number] = trial = self._study.ask()
            if self._plan.sampler == "cmaes":
                _ = trial.relative_params  # CMA-ES moves on by being asked, even where the answer is known
            return self._plan.suggest(trial)

    def _sampler(self, number: int, again: int = 0) -> Any:
        """One for each draw: a resume then draws what an unbroken search would have."""
        seed = derive(self._plan.seed, "search", number, *((again,) if again else ())) % 2**32
        samplers = self._optuna.samplers
        if self._plan.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True)  # what runs beside it is to be kept away from
        if self._plan.sampler == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return samplers.RandomSampler(seed=seed)

    def _replay(self) -> None:
        """Ask and tell all that the directory knows, in the order in which it happened."""
        states, width = self._sweep.states(), self._plan.width
        for job, event in self._sweep.journal_events():
            if event == _REPEATED:
                self._study.tell(self._study.ask(), state=self._optuna.trial.TrialState.FAIL)  # it counts them
            elif event == "started":
                self._ask_again(job)
            elif job // width in self._trials:
                self.tell(job, states[job])
        for job, state in states.items():  # what was killed before the journal knew of it
            self._ask_again(job)
            self.tell(job, state)

    def _ask_again(self, job: int) -> None:
        number = job // self._plan.width
        if number in self._trials:
            return
        words = dict(word.split("=", 1) for word in self._sweep.entries[job].overrides)
        try:
            chosen = [one for one in self._plan.space if not one.only or one.name in words]
            given = {one.name: one.read(words[one.name]) for one in chosen}
            self._ask(number, given)
            self._seen.setdefault(self._plan.identity(given), number)
        except (LookupError, ValueError, TypeError) as error:
            raise ConfigError(f"resume: job {job} is not of this search: {error}") from error

    def _report(self, number: int) -> bool:
        """Tell the study of the evaluations of a trial that it has not seen yet; whether there were any."""
        if self._plan.pruner == "none":  # as with seeds: a trial is one job here
            return False
        run = self._sweep.run_path(number)
        with contextlib.suppress(OSError):
            size, (seen, told) = (run / "metrics.jsonl").stat().st_size, self._reported.get(number, (0, 0))
            if size != seen:
                values = evaluations(run, self._plan.metrics[0])
                for step in range(told, len(values)):
                    self._trials[number].report(values[step], step + 1)
                self._reported[number] = size, max(told, len(values))
                return len(values) > told
        return False


def import_optuna(sampler: str) -> Any:
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
