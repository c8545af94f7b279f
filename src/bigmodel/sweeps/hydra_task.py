"""What Hydra's launchers and sweepers are given: the jobs of a sweep, one by one, all together or as a search."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bigmodel.commands.exit_codes import print_errors
from bigmodel.config.config import Config
from bigmodel.config.validation import check_composed
from bigmodel.errors import BigmodelError, ConfigError, Interrupted
from bigmodel.runs.records import is_sweep
from bigmodel.runtime import gpus
from bigmodel.runtime.signals import StopRequest
from bigmodel.sweeps.engines.launch import open_engine
from bigmodel.sweeps.engines.options import LOCAL, is_local
from bigmodel.sweeps.engines.options import validate_options as checked_options
from bigmodel.sweeps.run import report_outcome, run_sweep
from bigmodel.sweeps.search.plan import parse_n_trials
from bigmodel.sweeps.search.start import Bases, prepare_search
from bigmodel.sweeps.search.study import OptunaSearch
from bigmodel.sweeps.state.directory import JobSpec, SweepDirectory, common_overrides, job_spec
from bigmodel.sweeps.state.settings import parse_sweep_options, resolve_parallelism
from bigmodel.sweeps.state.staging import create_sweep_directory
from bigmodel.sweeps.table import dry_run_lines, print_line

ComposedJob = tuple[int, Sequence[str], DictConfig]  # number, overrides, config


_CHECK_S = 30.0  # a dry run spends on checking configs; one takes some 10 ms
_NUMBERS_SHOWN = 3


class JobsRefused(ConfigError):
    """Every mistake in the configs of a sweep's jobs, each with the numbers of its jobs."""


@dataclass
class HydraTask:
    """What Hydra's launchers are given."""

    trust: tuple[str, ...]
    stop: StopRequest
    dry_run: bool
    seeds: bool = False
    code: int = 0  # of the first job that failed
    _sweep: SweepDirectory | None = None

    def __call__(self, composed: DictConfig) -> None:
        """One job in this process, as Hydra's own launchers want it; that it fails stops no other."""
        from bigmodel.commands import train

        hydra = HydraConfig.get()
        try:
            train.run(
                check_composed(composed, "train", self.trust)[0], self.stop, Path(hydra.sweep.dir) / str(hydra.job.num)
            )
        except Interrupted as error:
            print_errors(error.lines)
            raise SystemExit(error.exit_code) from None
        except BigmodelError as error:
            print_errors([*error.lines, f"job {hydra.job.num} failed"])
            self.code = self.code or error.exit_code
        except Exception as error:  # a bug, ours or a user's model's: the other jobs are worth their results
            print_errors([f"job {hydra.job.num} failed: {type(error).__name__}: {error}"])
            self.code = self.code or 1

    def launch(self, path: Path, jobs: Iterator[ComposedJob], chosen: Mapping[str, Any]) -> list[float | None]:
        """All jobs, or those of one batch of a sweeper that asks in batches: frozen, run, and the best of each, which
        is None for one that failed.
        """
        engine, options = _engine(chosen)
        chosen = parse_sweep_options(chosen)
        if self.dry_run:
            return self._listed(jobs)
        if self._sweep is None:
            self._sweep = create_sweep_directory(path, engine == LOCAL)
        sweep = self._sweep
        before = sweep.states()
        if chosen["on_failure"] == "stop" and any(state.status != "done" for state in before.values()):
            return [None for _ in jobs]  # of a batch before this one
        with open_engine(
            sweep.path, sweep.lock.fileno(), engine, options
        ) as workers:  # ours loads torch while the configs are composed here
            frozen = self._snapshot_configs(jobs)
            entries, wanted = [job for job, _ in frozen], len(before) + len(frozen)
            kinds = {job.device for job in entries}
            how = resolve_parallelism(
                chosen["jobs"], chosen["on_failure"], kinds, wanted, len(gpus.visible_gpus()), engine, options
            )
            sweep.snapshot_configs(frozen, how, self.trust)
            numbers = [job.number for job in entries]
            run_sweep(sweep, workers, numbers, self.trust, self.stop)
        states = sweep.states(numbers)
        return [state.value if state.status == "done" else None for state in states.values()]

    def search(
        self,
        path: Path,
        chosen: Mapping[str, Any],
        given: Mapping[str, Any],
        overrides: Mapping[str, Any],
        groups: set[str],
        bases: Bases,
    ) -> None:
        """A search, of what `collate` takes: frozen, then run. Raises as `collate`; nothing was made then."""
        engine, options = _engine(chosen)
        chosen = parse_sweep_options(chosen)
        here = is_local(engine, options)
        plan, configs, doubts = prepare_search(given, overrides, groups, bases, self.trust, self.seeds, here)
        for config in configs:
            self._grant(config)
        texts = [config.to_template_yaml() for config in configs]
        trials = plan.trials(parse_n_trials(given["n_trials"]))
        for line in plan.describe_search(trials) if self.dry_run else ():
            print(line)  # the command's answer, which must not be lost
        for line in (*plan.fewer(parse_n_trials(given["n_trials"])), *(f"warning: {doubt}" for doubt in doubts)):
            print_line(line)
        if self.dry_run:
            return
        self._sweep = sweep = create_sweep_directory(path, engine == LOCAL)
        with open_engine(sweep.path, sweep.lock.fileno(), engine, options) as workers:
            plan.write(sweep.path, texts)
            kinds = {str(config.values["device"].get("kind", "cpu")) for config in configs}
            sweep.trials = jobs = trials * plan.width
            how = resolve_parallelism(
                chosen["jobs"], chosen["on_failure"], kinds, jobs, len(gpus.visible_gpus()), engine, options
            )
            sweep.snapshot_configs([], how, self.trust)
            run_sweep(sweep, workers, [], self.trust, self.stop, OptunaSearch(sweep, plan, self.trust))

    def finish(self) -> int:
        """Once Hydra is through: tell what has become of all jobs, and return the exit code. Raises as
        `report_outcome`.
        """
        if self._sweep is not None and is_sweep(self._sweep.path):
            self.code = report_outcome(self._sweep, self.stop, self.trust)
        return self.code

    def close(self) -> None:
        """Let another process take the sweep up."""
        if self._sweep is not None:
            self._sweep.release()

    def _grant(self, config: Config) -> None:
        """Let the jobs read what their configs, which are the user's own, refer to in the environment."""
        self.trust = tuple(dict.fromkeys((*self.trust, *config.trust_for_resume)))

    def _listed(self, jobs: Iterator[ComposedJob]) -> list[float | None]:
        """Check and list the jobs of a dry run. JobsRefused where a job's config is wrong."""
        composed: list[tuple[int, list[str], str]] = []
        wrong: dict[str, list[int]] = {}
        found: dict[str, list[str]] = {}  # by configuration: many jobs may have the same one
        spent, left_out = 0.0, 0
        for number, words, tree in jobs:
            digest = _digest(tree)
            composed.append((number, [*words], digest))
            if digest not in found and spent < _CHECK_S:
                began = monotonic()
                found[digest] = check_composed(tree, "train", self.trust)[1]
                spent += monotonic() - began
            left_out += digest not in found
            for line in found.get(digest, ()):
                wrong.setdefault(line, []).append(number)
        _refuse(wrong, len(composed))
        common = common_overrides(words for _, words, _ in composed)
        for line in dry_run_lines({number: [w for w in words if w not in common] for number, words, _ in composed}):
            print(line)  # the command's answer, which must not be lost
        if left_out:
            print_line(
                f"the configs of {len(composed) - left_out} of {len(composed)} jobs were checked, in {spent:.0f} s"
            )
        _tell_repeats((number, digest) for number, _, digest in composed)
        return [None] * len(composed)

    def _snapshot_configs(self, jobs: Iterator[ComposedJob]) -> list[tuple[JobSpec, str]]:
        """JobsRefused unless every job's config is right."""
        frozen: list[tuple[JobSpec, str]] = []
        wrong: dict[str, list[int]] = {}
        total = 0
        for number, words, composed in jobs:
            if self.stop():
                raise Interrupted(f"stopped by {self.stop.name}; nothing more was started")
            total += 1
            config, lines = check_composed(composed, "train", self.trust)
            for line in lines:
                wrong.setdefault(line, []).append(number)
            if not wrong:
                self._grant(config)
                frozen.append((job_spec(number, words, config.values), config.to_job_yaml()))
        _refuse(wrong, total)
        _tell_repeats((job.number, text) for job, text in frozen)
        return frozen


def _refuse(wrong: Mapping[str, Sequence[int]], total: int) -> None:
    """JobsRefused with a line for each mistake and the numbers of the jobs that have it, of `total` jobs."""
    lines = []
    for line, numbers in wrong.items():
        shown = ", ".join(map(str, numbers[:_NUMBERS_SHOWN]))
        more = len(numbers) - _NUMBERS_SHOWN
        others = f" and {more} more" if more > 0 else ""
        where = f"job {shown}" if len(numbers) == 1 else f"jobs {shown}{others}"
        lines.append(f"{where if len(numbers) < max(total, 2) else f'all {total} jobs'}: {line}")
    if lines:
        raise JobsRefused(*lines)


def _digest(composed: DictConfig) -> str:
    """Hash a composed config without Hydra's keys, which number the job."""
    own = repr(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))
    return hashlib.sha256(own.encode("utf-8", "backslashreplace")).hexdigest()


def _tell_repeats(jobs: Iterable[tuple[int, str]]) -> None:
    first: dict[str, int] = {}
    for number, text in jobs:
        if first.setdefault(text, number) != number:
            print_line(f"job {number} is the same configuration as job {first[text]}")


def _engine(chosen: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    engine = str(chosen.get("engine", LOCAL))
    return engine, checked_options(engine, chosen.get("options", {}))
