"""`bigmodel-train -m resume=DIR`: what is done stays, what is half done goes on, the rest is run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from bigmodel.errors import ConfigError
from bigmodel.runtime import gpus
from bigmodel.runtime.signals import StopRequest
from bigmodel.sweeps.engines.launch import open_engine
from bigmodel.sweeps.engines.options import validate_options
from bigmodel.sweeps.run import report_outcome, run_sweep
from bigmodel.sweeps.search.plan import parse_n_trials, read
from bigmodel.sweeps.search.study import OptunaSearch
from bigmodel.sweeps.state.directory import SweepDirectory, find_sweep
from bigmodel.sweeps.state.settings import resolve_parallelism
from bigmodel.sweeps.table import print_job_table, print_line

_OPTION = "hydra.launcher."
_COUNT = "hydra.sweeper.n_trials="
_MAY_CHANGE = f"jobs, on_failure, dry_run, {_OPTION}* and, of a search, {_COUNT.rstrip('=')}"


def resume(
    path: str, overrides: Sequence[str], given: Mapping[str, Any], trust: Sequence[str], stop: StopRequest
) -> int:
    """Take a sweep to its end. Returns as `report_outcome`.

    Raises:
        ConfigError: there is no such sweep, or something else than `jobs`, `on_failure`, its engine's options and the
            number of trials is to change.
        StorageError: another process runs it.
        Interrupted: a signal came; the jobs have saved.
    """
    words = [text.removeprefix(_OPTION).partition("=") for text in overrides if text.startswith(_OPTION)]
    counts = [text for text in overrides if text.startswith(_COUNT)]
    free = ("dry_run=true", "dry_run=false", *counts)
    refused = [text for text in overrides if text not in free and not text.startswith(_OPTION)]
    if refused:
        raise ConfigError(
            *(f"resume: {text}: a sweep goes on as it was frozen; {_MAY_CHANGE} may change" for text in refused)
        )
    sweep = SweepDirectory(find_sweep(path), to_write="dry_run=true" not in overrides)
    try:
        if "dry_run=true" in overrides:
            print_job_table(sweep)
            return 0
        if counts and sweep.trials is None:
            raise ConfigError(f"resume: {counts[-1]}: the sweep is no search")
        plan = None if sweep.trials is None else read(sweep.path)
        if counts and plan is not None:
            wanted = parse_n_trials(counts[-1].removeprefix(_COUNT))
            sweep.trials = plan.trials(wanted) * plan.width
            for line in plan.fewer(wanted):
                print_line(line)
            sweep.write_manifest(sweep.settings)
        if sweep.num_remaining(sweep.states()):
            if not set(sweep.trust) <= set(trust):
                granted = f"trust=[{','.join(sweep.trust)}]"
                raise ConfigError(f"resume: the sweep was started with {granted}, which is not kept; give it again")
            _settle(sweep, given, {key: _read(value) for key, _, value in words})
            with open_engine(
                sweep.path, sweep.lock.fileno(), sweep.settings.engine, sweep.settings.options
            ) as workers:  # beside which the study is
                search = None if plan is None else OptunaSearch(sweep, plan, trust)  # rebuilt here
                run_sweep(sweep, workers, [*sweep.entries], trust, stop, search)
        return report_outcome(sweep, stop, trust)
    finally:
        sweep.release()


def _settle(sweep: SweepDirectory, given: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Change how the jobs are run; what is read from `sweep.json` is checked as if it were given anew."""
    now = sweep.settings
    if changed.get("executor", now.options.get("executor")) != now.options.get("executor"):
        raise ConfigError("resume: hydra.launcher.executor: the jobs may still be with the other one; it stays")
    options = validate_options(now.engine, {**now.options, **changed})
    if "jobs" in given or changed:
        jobs, on_failure = given.get("jobs", now.jobs), given.get("on_failure", now.on_failure)
        kinds, wanted = {job.device for job in sweep.entries.values()}, sweep.trials or len(sweep.entries)
        sweep.write_manifest(
            resolve_parallelism(jobs, on_failure, kinds, wanted, len(gpus.visible_gpus()), now.engine, options)
        )
    elif given:
        sweep.write_manifest(replace(now, **given))


def _read(value: str) -> Any:
    """A number or a word as YAML has it, the text itself where it is neither."""
    with contextlib.suppress(yaml.YAMLError):
        return yaml.safe_load(value)
    return value
