"""`bigmodel-train -m resume=DIR`: what is done stays, what is half done goes on, the rest is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bigmodel.errors import ConfigError
from bigmodel.search.plan import count, read
from bigmodel.search.study import Search
from bigmodel.signals import Stop
from bigmodel.sweep import gpus
from bigmodel.sweep.directory import Sweep, existing
from bigmodel.sweep.run import ending, run
from bigmodel.sweep.settings import settled
from bigmodel.sweep.table import plain
from bigmodel.sweep.workers import Workers

_COUNT = "hydra.sweeper.n_trials="


def resume(path: str, overrides: Sequence[str], given: Mapping[str, Any], trust: Sequence[str], stop: Stop) -> int:
    """Take a sweep to its end. Returns as `ending`.

    Raises:
        ConfigError: there is no such sweep, or something else than `jobs`, `on_failure` and the number of trials is to
            change.
        StorageError: another process runs it.
        Interrupted: a signal came; the jobs have saved.
    """
    counts = [text for text in overrides if text.startswith(_COUNT)]
    refused = [text for text in overrides if text not in ("dry_run=true", "dry_run=false", *counts)]
    if refused:
        raise ConfigError(
            *(f"resume: {text}: a sweep goes on as it was frozen; jobs and on_failure may change" for text in refused)
        )
    sweep = Sweep(existing(path))
    try:
        if "dry_run=true" in overrides:
            plain(sweep)
            return 0
        if counts and sweep.trials is None:
            raise ConfigError(f"resume: {counts[-1]}: the sweep is no search")
        plan = None if sweep.trials is None else read(sweep.path)
        if counts and plan is not None:
            sweep.trials = plan.trials(count(counts[-1].removeprefix(_COUNT)))
            sweep.settle(sweep.settings)
        if sweep.left(sweep.states()):
            if not set(sweep.trust) <= set(trust):
                granted = f"trust=[{','.join(sweep.trust)}]"
                raise ConfigError(f"resume: the sweep was started with {granted}, which is not kept; give it again")
            _settle(sweep, given)
            with Workers(sweep.lock.fileno()) as workers:  # it loads torch while the study is rebuilt here
                search = None if plan is None else Search(sweep, plan, trust)
                run(sweep, workers, [*sweep.entries], trust, stop, search)
        return ending(sweep, stop, trust)
    finally:
        sweep.lock.release()


def _settle(sweep: Sweep, given: Mapping[str, Any]) -> None:
    if "jobs" in given:
        kinds = {job.device for job in sweep.entries.values()}
        on_failure = given.get("on_failure", sweep.settings.on_failure)
        wanted = sweep.trials or len(sweep.entries)
        sweep.settle(settled(given["jobs"], on_failure, kinds, wanted, len(gpus.visible())))
    elif given:
        sweep.settle(replace(sweep.settings, **given))
