"""`bigmodel-train -m resume=DIR`: run what is left of a sweep, and resume its interrupted jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from bigmodel.errors import ConfigError
from bigmodel.runtime.signals import StopRequest
from bigmodel.sweeps.engines.launch import open_engine
from bigmodel.sweeps.engines.options import validate_options
from bigmodel.sweeps.report import report_outcome
from bigmodel.sweeps.run import run_sweep
from bigmodel.sweeps.search.plan import SearchPlan, parse_n_trials, read_plan
from bigmodel.sweeps.search.study import OptunaSearch
from bigmodel.sweeps.state.directory import SweepDirectory, find_sweep
from bigmodel.sweeps.state.settings import LauncherOptions
from bigmodel.sweeps.table import print_job_table, print_line

_OPTION = "hydra.launcher."
_N_TRIALS = "hydra.sweeper.n_trials="
_MAY_CHANGE = f"jobs, on_failure, dry_run, {_OPTION}* and, of a search, {_N_TRIALS.rstrip('=')}"


def resume(
    path: str, overrides: Sequence[str], given: Mapping[str, Any], trust: Sequence[str], stop: StopRequest
) -> int:
    """Run a sweep to its end; `given` holds new `jobs` and `on_failure`. Returns as `report_outcome`.

    Raises:
        ConfigError: there is no such sweep, or an override changes what a sweep must keep.
        StorageError: another process runs it.
        Interrupted: a signal came; the jobs have saved.
    """
    options = [text.removeprefix(_OPTION).partition("=") for text in overrides if text.startswith(_OPTION)]
    n_trials = [text for text in overrides if text.startswith(_N_TRIALS)]
    allowed = ("dry_run=true", "dry_run=false", *n_trials)
    refused = [text for text in overrides if text not in allowed and not text.startswith(_OPTION)]
    if refused:
        raise ConfigError(
            *(
                f"resume: {text} cannot change once a sweep has started; only these can: {_MAY_CHANGE}"
                for text in refused
            )
        )
    found = find_sweep(path)
    sweep = SweepDirectory(found, to_write="dry_run=true" not in overrides)
    try:
        if "dry_run=true" in overrides:
            print_job_table(sweep, sweep.read_progress())
            return 0
        if n_trials and sweep.trials is None:
            raise ConfigError(f"resume: {n_trials[-1]}: applies to searches only, and this sweep is not one")
        plan = None if sweep.trials is None else read_plan(sweep.path)
        if n_trials and plan is not None:
            _change_n_trials(sweep, plan, n_trials[-1].removeprefix(_N_TRIALS))
        if sweep.num_remaining(sweep.read_progress()):
            if not set(sweep.trust) <= set(trust):
                granted = f"trust=[{','.join(sweep.trust)}]"
                raise ConfigError(f"resume: the sweep was started with {granted}, which is not kept; give it again")
            sweep.trust = tuple(trust)
            _change_settings(sweep, given, {key: _parse_value(value) for key, _, value in options})
            settings = sweep.settings
            with open_engine(sweep.path, sweep.lock.fileno(), settings.engine, settings.options) as engine:
                search = None if plan is None else OptunaSearch(sweep, plan)
                run_sweep(sweep, engine, [*sweep.jobs], stop, search)
        return report_outcome(sweep, stop, trust)
    finally:
        sweep.release()


def _change_n_trials(sweep: SweepDirectory, plan: SearchPlan, n_trials: str) -> None:
    wanted = parse_n_trials(n_trials)
    sweep.trials = plan.num_trials(wanted) * plan.jobs_per_trial
    for line in plan.describe_fewer_trials(wanted):
        print_line(line)
    sweep.write_manifest(sweep.settings)


def _change_settings(sweep: SweepDirectory, given: Mapping[str, Any], changed_options: Mapping[str, Any]) -> None:
    """Change how the jobs are run. Options read from `sweep.json` are validated too.

    Raises:
        ConfigError: an option is invalid, or must not change.
    """
    now = sweep.settings
    if changed_options.get("executor", now.options.get("executor")) != now.options.get("executor"):
        raise ConfigError(
            f"resume: {_OPTION}executor cannot change: jobs may still be queued on the old executor; leave it out"
        )
    options = validate_options(now.engine, {**now.options, **changed_options})
    if "jobs" in given or changed_options:
        jobs, on_failure = given.get("jobs", now.jobs), given.get("on_failure", now.on_failure)
        launcher = LauncherOptions(jobs, on_failure, now.engine, options)
        device_types = {job.device for job in sweep.jobs.values()}
        ranks = max((job.ranks for job in sweep.jobs.values()), default=1)
        sweep.write_manifest(launcher.resolve(device_types, sweep.trials or len(sweep.jobs), ranks))
    elif given:
        sweep.write_manifest(replace(now, **given))


def _parse_value(text: str) -> Any:
    """Parse a YAML value; text that is no YAML is returned as it is."""
    with contextlib.suppress(yaml.YAMLError):
        return yaml.safe_load(text)
    return text
