"""Optuna study of a search, in memory: asked for a trial when a job can start, told when a trial has ended.

It is rebuilt from the sweep's directory: the trials' overrides, the journal and the runs. So no second record can
disagree after a kill, and nothing of Optuna's is read from disk, which for CMA-ES would be a pickle. Sampling is a pure
function of (seed, trial number, results so far).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from bigmodel.config.renamed import current_path
from bigmodel.config.saved import load_snapshot
from bigmodel.errors import ConfigError, DivergedError
from bigmodel.safe_files import replacing
from bigmodel.seeds import derive
from bigmodel.sweeps.search.outcome import mean_values, validation_curve
from bigmodel.sweeps.search.plan import Point, SearchPlan
from bigmodel.sweeps.state.directory import SweepDirectory
from bigmodel.sweeps.state.jobs import JobProgress, job_spec

STUDY = "optuna.log"
_NAME = "search"
_REPEATED = "repeated"  # journal event: a draw that gave the point of an earlier trial
_MAX_DRAWS = 10
_WORST = {"minimize": math.inf, "maximize": -math.inf}


class OptunaSearch:
    """Trials of a sweep's search; a trial is one job, or one for each seed."""

    def __init__(self, sweep: SweepDirectory, plan: SearchPlan) -> None:
        """Create the study and replay what the sweep's directory records.

        Raises:
            ConfigError: Optuna is not installed, or a base config is no longer valid.
        """
        self._sweep = sweep
        self._plan = plan
        self._optuna = import_optuna(plan.sampler)
        bases = [sweep.path / "bases" / f"{index}.yaml" for index in range(len(plan.bases))]
        self._bases = [load_snapshot(file, sweep.trust) for file in bases]
        self._trials: dict[int, Any] = {}
        self._finished_trials = set[int]()
        self._pruned_jobs = set[int]()
        self._ended_jobs: dict[int, dict[int, JobProgress]] = {}  # by trial
        self._trial_of_point: dict[str, int] = {}
        self._remarks: list[str] = []
        self._reported: dict[int, tuple[int, int]] = {}  # by job: size of metrics.jsonl, evaluations reported
        sweep.jobs_per_trial = plan.jobs_per_trial
        with _silence_warnings():
            optuna = self._optuna.pruners
            pruners = {"none": optuna.NopPruner, "median": optuna.MedianPruner, "hyperband": optuna.HyperbandPruner}
            self._storage = self._optuna.storages.InMemoryStorage()
            self._study = self._optuna.create_study(
                storage=self._storage,
                study_name=_NAME,
                directions=[*plan.directions],
                pruner=pruners[plan.pruner](),
            )
        self._replay()

    def next_jobs(self) -> Sequence[int]:
        """Ask for one more trial, and return its jobs; none if there are enough trials."""
        trial = self.ask()
        return () if trial is None else self.jobs(trial)

    def ask(self) -> int | None:
        """Add the jobs of one more trial to the sweep and return its number, or None if there are enough trials."""
        trial = len(self._sweep.jobs) // self._plan.jobs_per_trial
        if trial * self._plan.jobs_per_trial >= (self._sweep.trials or 0):
            return None
        drawn = self._draw_new_point(trial)
        if drawn is None:  # possible if an older version has tried some points twice
            self._remarks.append("all configurations of the space have been tried")
            return None
        point, num_repeats = drawn
        space = self._plan.space
        config = self._bases[self._plan.base_index(point)]
        values = {
            current_path(config.unresolved, one.key): one.config_value(point[one.name])  # the plan may be an old one
            for one in space
            if not one.group and one.name in point
        }
        config = config.with_values(values)
        overrides = [f"{name}={value}" for name, value in point.items()]
        snapshots = []
        for job, seed in zip(self.jobs(trial), self._plan.seeds or (None,), strict=True):
            own_config = config if seed is None else config.with_values({"seed": seed})
            own_overrides = overrides if seed is None else [*overrides, f"seed={seed}"]
            snapshots.append((job_spec(job, own_overrides, own_config.values), own_config.to_job_yaml()))
        self._sweep.snapshot_configs(snapshots, self._sweep.settings, self._sweep.trust)
        for _ in range(num_repeats):
            self._sweep.append_journal(self.jobs(trial)[0], _REPEATED)
        return trial

    def jobs(self, trial: int) -> range:
        """Return the numbers of a trial's jobs."""
        width = self._plan.jobs_per_trial
        return range(trial * width, (trial + 1) * width)

    def pop_remarks(self) -> list[str]:
        """Return and clear the remarks on trials that were asked for since the last call."""
        remarks, self._remarks = self._remarks, []
        return remarks

    def trials_to_prune(self, running: Collection[int]) -> list[int]:
        """Return the running jobs that the pruner wants to stop, each once."""
        found = []
        for job in sorted(running) if self._plan.pruner != "none" else ():
            if job not in self._pruned_jobs and self._report(job) and self._trials[job].should_prune():
                self._pruned_jobs.add(job)
                found.append(job)
        return found

    def tell(self, job: int, progress: JobProgress) -> None:
        """Record the end of a job; tell the study once all jobs of its trial have ended.

        A job that a resume will run again is ignored. A diverged trial gets the worst value, so that the sampler learns
        from it.

        Raises:
            ConfigError: the trial is done but lacks one of the metrics.
        """
        trial = job // self._plan.jobs_per_trial
        if trial in self._finished_trials or not self._sweep.is_final(progress):
            return
        ended = self._ended_jobs.setdefault(trial, {})
        ended[job] = progress
        if len(ended) < self._plan.jobs_per_trial:
            return
        self._finished_trials.add(trial)
        self._report(trial)
        states, values = self._optuna.trial.TrialState, None
        statuses, state = {each.status for each in ended.values()}, states.FAIL
        if any(each.code == DivergedError.exit_code for each in ended.values()):
            state, values = states.COMPLETE, tuple(_WORST[direction] for direction in self._plan.directions)
        elif statuses == {"done"}:
            state, values = states.COMPLETE, mean_values(self._sweep, self._plan, [*ended])
            if values is None:
                wanted = ", ".join(self._plan.metrics)
                raise ConfigError(f"hydra.sweeper.metrics: trial {trial} is done and has not all of {wanted}")
        elif "pruned" in statuses:
            self._sweep.mark_pruned(job)
            state = states.PRUNED
        with _silence_warnings():
            self._study.tell(self._trials[trial], values, state=state)

    def close(self) -> None:
        """Save the study for Optuna's own tools, such as its dashboard; this package never reads it."""
        with contextlib.suppress(OSError, ValueError), _silence_warnings(), replacing(self._sweep.path / STUDY) as file:
            storages = self._optuna.storages
            storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(file)))
            self._optuna.copy_study(from_study_name=_NAME, from_storage=self._storage, to_storage=storage)

    def _draw_new_point(self, trial: int) -> tuple[Point, int] | None:
        """Return a point for a new trial and the number of draws that gave points of earlier trials.

        Returns None if every point of the space has been tried.
        """
        points = self._plan.points
        if points and all(self._plan.identity(point) in self._trial_of_point for point in points):
            return None
        if self._plan.sampler == "grid":
            return (self._ask_study(trial, points[trial]), 0) if trial < len(points) else None
        earlier: dict[int, None] = {}
        for num_repeats in range(_MAX_DRAWS):
            point = self._ask_study(trial, None, num_repeats)
            same = self._trial_of_point.get(self._plan.identity(point))
            if same is None:
                break
            earlier[same] = None
            if num_repeats == _MAX_DRAWS - 1 and not points:
                self._remarks.append(f"trial {trial} repeats trial {same}: {_MAX_DRAWS} draws gave nothing new")
                break
            self._discard(trial)
        else:  # pick any point that is left
            left = [one for one in points if self._plan.identity(one) not in self._trial_of_point]
            point = self._ask_study(trial, left[derive(self._plan.seed, "search", trial, "left") % len(left)])
            num_repeats = _MAX_DRAWS
        self._trial_of_point[self._plan.identity(point)] = trial
        if num_repeats and earlier:
            names = ", ".join(map(str, earlier))
            self._remarks.append(f"trial {trial} was redrawn: the first draw repeats trial {names}")
        return point, num_repeats

    def _discard(self, trial: int) -> None:
        """Mark the trial that was asked for last as failed, from which the sampler learns nothing."""
        with _silence_warnings():
            self._study.tell(self._trials.pop(trial), state=self._optuna.trial.TrialState.FAIL)

    def _ask_study(self, trial: int, fixed: Point | None, num_repeats: int = 0) -> dict[str, float | str]:
        """Ask the study for a trial's point; with `fixed` it is that one."""
        with _silence_warnings():
            if fixed is not None:
                self._study.enqueue_trial(dict(fixed))
            self._study.sampler = self._make_sampler(trial, num_repeats)
            self._trials[trial] = optuna_trial = self._study.ask()
            if self._plan.sampler == "cmaes":
                _ = optuna_trial.relative_params  # CMA-ES advances when it is asked, even if the point is fixed
            return self._plan.suggest(optuna_trial)

    def _make_sampler(self, trial: int, num_repeats: int = 0) -> Any:
        """Return a sampler for one draw, so that a resumed search draws what an unbroken one would have."""
        seed = derive(self._plan.seed, "search", trial, *((num_repeats,) if num_repeats else ())) % 2**32
        samplers = self._optuna.samplers
        if self._plan.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True)  # avoids the points of running trials
        if self._plan.sampler == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return samplers.RandomSampler(seed=seed)

    def _replay(self) -> None:
        """Ask and tell what the sweep's directory records, in the order in which it happened."""
        jobs, width = self._sweep.read_progress(), self._plan.jobs_per_trial
        for job, event in self._sweep.journal_events():
            if event == _REPEATED:
                self._study.tell(self._study.ask(), state=self._optuna.trial.TrialState.FAIL)  # keeps Optuna's count
            elif event == "started":
                self._replay_ask(job)
            elif job // width in self._trials:
                self.tell(job, jobs[job])
        for job, progress in jobs.items():  # a kill may have come before the journal was written
            self._replay_ask(job)
            self.tell(job, progress)

    def _replay_ask(self, job: int) -> None:
        trial = job // self._plan.jobs_per_trial
        if trial in self._trials:
            return
        overrides = dict(text.split("=", 1) for text in self._sweep.jobs[job].overrides)
        try:
            active = [one for one in self._plan.space if not one.only or one.name in overrides]
            point = {one.name: one.parse(overrides[one.name]) for one in active}
            self._ask_study(trial, point)
            self._trial_of_point.setdefault(self._plan.identity(point), trial)
        except (LookupError, ValueError, TypeError) as error:
            raise ConfigError(f"resume: job {job} is not of this search: {error}") from error

    def _report(self, job: int) -> bool:
        """Report a job's new evaluations to the study. Returns whether there were any."""
        if self._plan.pruner == "none":  # with a pruner a trial is one job, so job and trial have one number
            return False
        run = self._sweep.run_path(job)
        with contextlib.suppress(OSError):
            size, (known_size, num_reported) = (run / "metrics.jsonl").stat().st_size, self._reported.get(job, (0, 0))
            if size != known_size:
                values = validation_curve(run, self._plan.metrics[0])
                for index in range(num_reported, len(values)):
                    self._trials[job].report(values[index], index + 1)
                self._reported[job] = size, max(num_reported, len(values))
                return len(values) > num_reported
        return False


def import_optuna(sampler: str) -> Any:
    """Import Optuna; called only for a search.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with _silence_warnings():
            import optuna

            if sampler == "cmaes":
                import cmaes  # noqa: F401 - Optuna imports it in the middle of the search
    except ImportError as error:
        raise ConfigError("hydra/sweeper=optuna needs Optuna: pip install 'bigmodel-train[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def _silence_warnings() -> Iterator[None]:
    """Suppress Optuna's warnings about experimental features, which are this package's choice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
