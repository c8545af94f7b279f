"""What a resumed run is made of: the run's own config, and the few keys that may differ from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmodel.config.config import Config
from bigmodel.config.neutral_keys import ALLOWED_ON_RESUME, MAY_INCREASE, may_change_on_resume
from bigmodel.config.renamed import with_current_targets
from bigmodel.config.saved import load_config
from bigmodel.config.seal import is_intact
from bigmodel.errors import ConfigError, StorageError
from bigmodel.runs.records import is_sweep
from bigmodel.runtime.stdout import print_line
from bigmodel.safe_files import is_there, open_regular, read_text

if TYPE_CHECKING:
    from bigmodel.config.composition import ConfigSource
    from bigmodel.training.state import TrainState

_LAST_BITS = ("kind", "precision", "channels_last", "compile", "threads", "deterministic")  # of a device
_JUMP = 0.01  # of the rate


def load_for_resume(
    run: str, overrides: Sequence[str], source: ConfigSource, trust: Sequence[str]
) -> tuple[Path, Config]:
    """The run's directory and its config with the allowed changes; the difference is printed.

    Raises:
        ConfigError: there is no such run, or a key changed that would make it another run.
    """
    from bigmodel.config.composition import apply_overrides  # loads Hydra, which a job of a sweep has no need of

    directory = Path(run)
    file = directory / "config.yaml"
    try:
        if is_sweep(directory):
            raise ConfigError(f"resume: '{run}' is a sweep; add -m")
        if not is_there(file):
            raise ConfigError(f"resume: there is no run at '{run}' (no config.yaml in it); runs lie under outputs/")
        open_regular(file).close()
    except OSError as error:
        raise StorageError(f"resume: {error.filename or file}: {error.strerror or error}") from error
    stored = load_config(file, trust)
    if not overrides:
        return directory, stored
    changed = apply_overrides(stored, overrides, source, trust)
    difference = list(_difference("", stored.values, changed.values))
    refused = [
        stored.redact(changed.redact(f"resume: {problem}"))
        for key, old, new in difference
        if (problem := _refusal(key, old, new))
    ]
    if refused:
        raise ConfigError(*refused)
    for key, old, new in difference:
        group, _, name = key.partition(".")
        bits = "; the bits are not those of an unbroken run" if group == "device" and name in _LAST_BITS else ""
        print_line(stored.redact(changed.redact(f"resume: {key} was {old}, is now {new}{bits}")))
    return directory, changed


def check_config_unchanged(directory: Path, config: Config, state: Mapping[str, Any] | None) -> list[str]:
    """Hold the config that a run is to go on with against its newest checkpoint's `state`, if it has one.

    Returns a line for each key without influence that was changed in the file, and not on the command line.

    Raises:
        ConfigError: `config.yaml` is not what the run was trained with, or is damaged and nothing tells what it was.
    """
    file = directory / "config.yaml"
    whole = is_intact(read_text(file))
    trained = None if state is None else state.get("config")
    if not isinstance(trained, Mapping):
        if whole is False:
            raise ConfigError(
                f"{file}: is not as the run wrote it, and no checkpoint says what it was; begin a new run, or, if you "
                "changed it on purpose, remove its last line"
            )
        return []
    assert state is not None
    wrong: list[str] = []
    notes: list[str] = []
    in_file = load_config(file, config.trust).redacted_dict() if whole is False else {}
    for key, old, new in _difference("", with_current_targets(trained), config.redacted_dict()):
        changed_in_file = whole is False and _same(new, _value(in_file, key))
        refusal = _refusal(key, old, new)
        if refusal or (key in MAY_INCREASE and changed_in_file):
            longer = f"; to train longer, then give {key}={new} with resume=" if not refusal else ""
            wrong.append(
                f"{file}: {key} is {new}, and the run was trained with {old} up to step {state.get('step')}; the file "
                f"is damaged or was edited: set {key} to {old} in it{longer}"
            )
        elif changed_in_file:
            notes.append(f"{file}: {key} was {old}, is now {new}: the file was edited, or is damaged")
    if wrong:
        raise ConfigError(*map(config.redact, wrong))
    return [*map(config.redact, notes)]


def describe_jumps(job: TrainState, state: Mapping[str, Any], patience: int | None) -> list[str]:
    """What a changed length does to a run whose newest checkpoint has this `state`: lines for people."""
    step, steps, best = (state.get(key) for key in ("step", "steps", "best"))
    if not isinstance(step, int) or not isinstance(steps, int) or not 0 < step <= steps or steps == job.steps:
        return []
    lines: dict[str, None] = {}
    for group in job.param_groups:
        was = job.rate(group, step - 1, steps)
        expected = job.rate(group, step, steps) if step < steps else was
        now = job.rate(group, step, job.steps)
        if abs(now - expected) > _JUMP * max(now, expected):
            trains = "; its parameters had ended training" if was == 0 < now else ""
            lines[
                f"resume: the learning rate jumps from {was:.3g} at step {step} to {now:.3g} at step {step + 1}, "
                f"because the schedule is laid over {job.steps} steps now, not {steps}{trains}"
            ] = None
    since = best.get("since") if isinstance(best, Mapping) else None
    if patience is not None and isinstance(since, int) and since >= patience:
        lines[f"resume: the run had stopped early, patience={patience}, and stays so: no step is added"] = None
    return [*lines]


def _refusal(key: str, old: Any, new: Any) -> str | None:
    if key in MAY_INCREASE:
        grows = isinstance(old, (int, float)) and new >= old
        return None if grows else f"{key} can only increase: was {old}, got {new}"
    if may_change_on_resume(key):
        return None
    return f"{key} cannot change from {old} to {new}; only these can: {', '.join(ALLOWED_ON_RESUME)}"


def _difference(prefix: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from _difference(f"{prefix}.{key}" if prefix else str(key), old.get(key), new.get(key))
    elif not _same(old, new):
        yield prefix, old, new


def _same(old: Any, new: Any) -> bool:
    return bool(old == new) or json.dumps(old, default=str) == json.dumps(new, default=str)  # as of NaN


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
