"""Task function for Hydra: run the jobs of a sweep one by one, all together, or as a search."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bigmodel.commands.exit_codes import print_errors
from bigmodel.config.config import Config
from bigmodel.config.override_text import override_key
from bigmodel.config.renamed import old_keys
from bigmodel.config.validation import check_composed
from bigmodel.errors import BigmodelError, ConfigError, Interrupted
from bigmodel.formatting import format_count, truncate
from bigmodel.runs.records import is_sweep
from bigmodel.runtime.gpus import rank_count
from bigmodel.runtime.live_text import StatusLine
from bigmodel.runtime.signals import StopRequest
from bigmodel.sweeps.engines.launch import open_engine
from bigmodel.sweeps.engines.options import LOCAL
from bigmodel.sweeps.report import report_outcome
from bigmodel.sweeps.run import run_sweep
from bigmodel.sweeps.search.plan import parse_n_trials
from bigmodel.sweeps.search.start import ComposeBases, prepare_search
from bigmodel.sweeps.search.study import OptunaSearch
from bigmodel.sweeps.state.directory import SweepDirectory, common_overrides
from bigmodel.sweeps.state.jobs import JobSpec, device_type, job_spec
from bigmodel.sweeps.state.settings import parse_launcher_options
from bigmodel.sweeps.state.staging import create_sweep_directory
from bigmodel.sweeps.table import dry_run_lines, print_line

ComposedJob = tuple[int, Sequence[str], DictConfig]  # number, overrides, config

_CHECK_S = 30.0  # seconds that a dry run spends on checking configs; each takes about 10 ms
_MAX_NUMBERS_SHOWN = 3


class JobsRefused(ConfigError):
    """All mistakes in the configs of a sweep's jobs, each with the numbers of its jobs."""


@dataclass
class HydraTask:
    """Task function that Hydra's launchers call once a job, and ours calls with all jobs or with a search."""

    trust: tuple[str, ...]
    stop: StopRequest
    dry_run: bool
    seeds: bool = False
    notes: Sequence[str] = ()  # of the first job's config, printed once
    code: int = 0  # of the first job that failed
    _sweep: SweepDirectory | None = None

    def __call__(self, composed: DictConfig) -> None:
        """Run one job in this process, for a launcher of Hydra's own; its failure stops no other job."""
        from bigmodel.commands import train

        hydra = HydraConfig.get()
        directory = Path(hydra.sweep.dir) / str(hydra.job.num)
        try:
            config, _ = check_composed(composed, "train", self.trust)
            train.run(config, self.stop, directory)
        except Interrupted as error:
            print_errors(error.lines)
            raise SystemExit(error.exit_code) from None
        except BigmodelError as error:
            print_errors([*error.lines, f"job {hydra.job.num} failed"])
            self.code = self.code or error.exit_code
        except Exception as error:  # a bug of ours, or in a user's model: the other jobs still have results
            print_errors([f"job {hydra.job.num} failed: {type(error).__name__}: {error}"])
            self.code = self.code or 1

    def launch(self, path: Path, jobs: Iterator[ComposedJob], given: Mapping[str, Any]) -> list[float | None]:
        """Snapshot and run all jobs, or one batch of a sweeper that works in batches.

        Returns the best monitored metric of each job, None for one that is not done. `given` are the launcher's
        options.

        Raises:
            ConfigError: an option is invalid, or its engine is not installed.
            JobsRefused: the config of a job is invalid; nothing was started.
        """
        launcher = parse_launcher_options(given)
        self._print_notes()
        if self.dry_run:
            return self._list_jobs(jobs)
        if self._sweep is None:
            self._sweep = create_sweep_directory(path, stage=launcher.engine == LOCAL)
        sweep = self._sweep
        earlier = sweep.read_progress()
        if launcher.on_failure == "stop" and any(job.status != "done" for job in earlier.values()):
            return [None for _ in jobs]  # a job of an earlier batch has failed
        # a local engine loads torch while this process composes the configs
        with open_engine(sweep.path, sweep.lock.fileno(), launcher.engine, launcher.options) as engine:
            with StatusLine() as status:
                status.show("composing the configs of the jobs")
                snapshots = self._compose_all(jobs)
            specs = [spec for spec, _ in snapshots]
            settings = launcher.resolve(
                {spec.device for spec in specs},
                len(earlier) + len(specs),
                max((spec.ranks for spec in specs), default=1),
            )
            sweep.snapshot_configs(snapshots, settings, self.trust)
            numbers = [spec.number for spec in specs]
            run_sweep(sweep, engine, numbers, self.stop)
        ended = sweep.read_progress(numbers)
        return [job.value if job.status == "done" else None for job in ended.values()]

    def search(
        self,
        path: Path,
        given: Mapping[str, Any],
        sweeper: Mapping[str, Any],
        overrides: Mapping[str, Any],
        groups: set[str],
        bases: ComposeBases,
    ) -> None:
        """Snapshot and run a search.

        `given` are the launcher's options, `sweeper` the sweeper's, `overrides` Hydra's parsed overrides by key,
        `groups` the keys that choose from a config group.

        Raises:
            ConfigError: as `launch` and `prepare_search`; nothing was started.
            DataError: the data is missing or damaged.
        """
        launcher = parse_launcher_options(given)
        self._print_notes()
        plan, configs, warnings = prepare_search(
            sweeper, overrides, groups, bases, self.trust, self.seeds, launcher.is_local
        )
        for config in configs:
            self._grant_environment(config)
        bases_yaml = [config.to_template_yaml() for config in configs]
        wanted = parse_n_trials(sweeper["n_trials"])
        num_trials = plan.num_trials(wanted)
        for line in plan.describe_search(num_trials) if self.dry_run else ():
            print(line)  # not `print_line`: a dry run must fail where its output is lost
        for line in (*plan.describe_fewer_trials(wanted), *(f"warning: {text}" for text in warnings)):
            print_line(line)
        if self.dry_run:
            return
        self._sweep = sweep = create_sweep_directory(path, stage=launcher.engine == LOCAL)
        with open_engine(sweep.path, sweep.lock.fileno(), launcher.engine, launcher.options) as engine:
            plan.write(sweep.path, bases_yaml)
            sweep.trials = num_trials * plan.jobs_per_trial
            ranks = max(rank_count(config.values["device"]) for config in configs)
            settings = launcher.resolve({device_type(config.values) for config in configs}, sweep.trials, ranks)
            sweep.snapshot_configs([], settings, self.trust)
            run_sweep(sweep, engine, [], self.stop, OptunaSearch(sweep, plan))

    def finish(self) -> int:
        """Report the outcome after Hydra has returned, and return the exit code. Raises as `report_outcome`."""
        if self._sweep is not None and is_sweep(self._sweep.path):
            self.code = report_outcome(self._sweep, self.stop, self.trust)
        return self.code

    def close(self) -> None:
        """Release the sweep's lock."""
        if self._sweep is not None:
            self._sweep.release()

    def _print_notes(self) -> None:
        for line in self.notes:
            print_line(line)
        self.notes = ()

    def _check(self, composed: DictConfig, overrides: Sequence[str]) -> tuple[Config, list[str]]:
        """Return the config of a job, and a line for each mistake in it."""
        config, problems = check_composed(composed, "train", self.trust)
        return config, [*old_keys(config.unresolved, map(override_key, overrides)), *problems]

    def _grant_environment(self, config: Config) -> None:
        """Let the jobs read the environment variables that their configs, which are the user's own, refer to."""
        self.trust = tuple(dict.fromkeys((*self.trust, *config.trust_for_resume)))

    def _list_jobs(self, jobs: Iterator[ComposedJob]) -> list[float | None]:
        """Check and print the jobs of a dry run. Raises JobsRefused."""
        listed: list[tuple[int, list[str], str]] = []
        numbers_by_problem: dict[str, list[int]] = {}
        problems: dict[str, list[str]] = {}  # by the config's hash: many jobs may have the same config
        spent_s, num_unchecked = 0.0, 0
        for number, overrides, composed in jobs:
            digest = _hash_config(composed)
            listed.append((number, [*overrides], digest))
            if digest not in problems and spent_s < _CHECK_S:
                began = monotonic()
                problems[digest] = self._check(composed, overrides)[1]
                spent_s += monotonic() - began
            num_unchecked += digest not in problems
            for line in problems.get(digest, ()):
                numbers_by_problem.setdefault(line, []).append(number)
        _raise_if_refused(numbers_by_problem, {number: overrides for number, overrides, _ in listed})
        common = common_overrides(overrides for _, overrides, _ in listed)
        distinct = {number: [text for text in overrides if text not in common] for number, overrides, _ in listed}
        for line in dry_run_lines(distinct):
            print(line)  # not `print_line`: a dry run must fail where its output is lost
        if num_unchecked:
            of = f"{len(listed) - num_unchecked} of {format_count(len(listed), 'job')}"
            print_line(f"the configs of {of} were checked, in {spent_s:.0f} s")
        _print_repeats((number, digest) for number, _, digest in listed)
        return [None] * len(listed)

    def _compose_all(self, jobs: Iterator[ComposedJob]) -> list[tuple[JobSpec, str]]:
        """Return the spec and the config of each job. Raises JobsRefused unless all configs are valid."""
        snapshots: list[tuple[JobSpec, str]] = []
        numbers_by_problem: dict[str, list[int]] = {}
        overrides_of: dict[int, Sequence[str]] = {}
        for number, overrides, composed in jobs:
            if self.stop():
                raise Interrupted(f"stopped by {self.stop.name}; nothing more was started")
            overrides_of[number] = overrides
            config, problems = self._check(composed, overrides)
            for line in problems:
                numbers_by_problem.setdefault(line, []).append(number)
            if not numbers_by_problem:
                self._grant_environment(config)
                snapshots.append((job_spec(number, overrides, config.values), config.to_job_yaml()))
        _raise_if_refused(numbers_by_problem, overrides_of)
        _print_repeats((job.number, text) for job, text in snapshots)
        return snapshots


def own_overrides(problem: str, numbers: Collection[int], overrides_of: Mapping[int, Sequence[str]]) -> list[str]:
    """Return the overrides that jobs with a problem have and no other job has, but for that of the key it names."""
    others = {text for number, texts in overrides_of.items() if number not in numbers for text in texts}
    texts = dict.fromkeys(text for number in numbers for text in overrides_of[number])
    key = problem.partition(":")[0]
    return [text for text in texts if others and text not in others and override_key(text) != key]


def _raise_if_refused(
    numbers_by_problem: Mapping[str, Sequence[int]], overrides_of: Mapping[int, Sequence[str]]
) -> None:
    """Raise JobsRefused with a line for each mistake, the numbers of its jobs, and the overrides that make it."""
    lines, total = [], len(overrides_of)
    for line, numbers in numbers_by_problem.items():
        shown = ", ".join(map(str, numbers[:_MAX_NUMBERS_SHOWN]))
        more = len(numbers) - _MAX_NUMBERS_SHOWN
        others = f" and {more} more" if more > 0 else ""
        where = f"job {shown}" if len(numbers) == 1 else f"jobs {shown}{others}"
        where = where if len(numbers) < max(total, 2) else f"all {total} jobs"
        own = truncate(", ".join(own_overrides(line, numbers, overrides_of)))
        lines.append(f"{where} ({own}): {line}" if own else f"{where}: {line}")
    if lines:
        raise JobsRefused(*lines)


def _hash_config(composed: DictConfig) -> str:
    """Hash a composed config without Hydra's keys, which contain the job's number."""
    own = repr(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))
    return hashlib.sha256(own.encode("utf-8", "backslashreplace")).hexdigest()


def _print_repeats(jobs: Iterable[tuple[int, str]]) -> None:
    """Print a line for each job whose config is that of an earlier one."""
    first: dict[str, int] = {}
    for number, config in jobs:
        if first.setdefault(config, number) != number:
            print_line(f"job {number} is the same configuration as job {first[config]}")
