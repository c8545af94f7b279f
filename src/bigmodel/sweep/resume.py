"""`bigmodel-train -m resume=DIR`: what is done stays, what is half done goes on, the rest is run. Imports no Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bigmodel.errors import ConfigError
from bigmodel.signals import Stop
from bigmodel.sweep.directory import Sweep, existing
from bigmodel.sweep.programs import settled_for
from bigmodel.sweep.run import ending, run
from bigmodel.sweep.table import plain
from bigmodel.sweep.workers import Workers


def resume(path: str, overrides: Sequence[str], given: Mapping[str, Any], trust: Sequence[str], stop: Stop) -> int:
    """Take a sweep to its end. Returns as `ending`.

    Raises:
        ConfigError: there is no such sweep, or something else than `jobs` and `on_failure` is to change.
        StorageError: another process runs it.
        Interrupted: a signal came; the jobs have saved.
    """
    refused = [text for text in overrides if text not in ("dry_run=true", "dry_run=false")]
    if refused:
        raise ConfigError(
            *(f"resume: {text}: a sweep goes on as it was frozen; jobs and on_failure may change" for text in refused)
        )
    sweep = Sweep(existing(path))
    try:
        if "dry_run=true" in overrides:
            plain(sweep)
            return 0
        if any(state.word != "done" for state in sweep.states().values()):
            if not set(sweep.trust) <= set(trust):
                granted = f"trust=[{','.join(sweep.trust)}]"
                raise ConfigError(f"resume: the sweep was started with {granted}, which is not kept; give it again")
            _settle(sweep, given)
            with Workers(sweep.lock.fileno()) as workers:
                run(sweep, workers, sweep.entries, trust, stop)
        return ending(sweep, stop, trust)
    finally:
        sweep.lock.release()


def _settle(sweep: Sweep, given: Mapping[str, Any]) -> None:
    if "jobs" in given:
        on_failure = given.get("on_failure", sweep.settings.on_failure)
        sweep.settle(settled_for(sweep.entries.values(), given["jobs"], on_failure))
    elif given:
        sweep.settle(replace(sweep.settings, **given))
