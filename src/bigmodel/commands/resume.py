"""Resume a run: load its config, apply the few changes that are allowed, and describe their effects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmodel.config.config import Config
from bigmodel.config.neutral_keys import ALLOWED_ON_RESUME, MAY_INCREASE, may_change_on_resume
from bigmodel.config.renamed import with_current_names
from bigmodel.config.saved import apply_overrides, load_config
from bigmodel.config.seal import is_intact
from bigmodel.errors import ConfigError, DataError, StorageError
from bigmodel.formatting import format_count, truncate
from bigmodel.quoting import shell_command
from bigmodel.runs.records import is_sweep
from bigmodel.runtime.stdout import print_line
from bigmodel.safe_files import is_there, open_regular, read_text

if TYPE_CHECKING:
    from bigmodel.config.location import ConfigSource
    from bigmodel.training.state import TrainState

_DEVICE_KEYS_OF_BITS = (
    *("kind", "precision", "channels_last", "compile", "threads", "count", "shard", "shard_ranks", "deterministic"),
)
_MIN_LR_JUMP = 0.01  # relative; smaller changes of the learning rate are not reported


def load_for_resume(
    run: str, overrides: Sequence[str], source: ConfigSource, trust: Sequence[str]
) -> tuple[Path, Config]:
    """Return the run's directory and its config with the overrides applied; print what they change.

    Raises:
        ConfigError: there is no such run, or a key must not change.
        StorageError: the config cannot be read.
    """
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
    changed = apply_overrides(stored, overrides, source)
    changes = list(_changes("", stored.values, changed.values))
    problems = [
        stored.redact(changed.redact(f"resume: {problem}"))
        for key, old, new in changes
        if (problem := _change_problem(key, old, new))
    ]
    if problems:
        raise ConfigError(*problems)
    for key, old, new in changes:
        group, _, name = key.partition(".")
        is_even = name == "count" and stored.values.get("pieces") is not None
        changes_bits = group == "device" and name in _DEVICE_KEYS_OF_BITS and not is_even
        bits = "; later steps may differ from those of an unbroken run in the last bits" if changes_bits else ""
        print_line(stored.redact(changed.redact(f"resume: {key} was {old}, is now {new}{bits}")))
    return directory, changed


def check_config_unchanged(directory: Path, config: Config, state: Mapping[str, Any] | None) -> list[str]:
    """Compare the config of a resumed run with the one in its newest checkpoint's `state`, if it has a checkpoint.

    Returns a warning for each allowed change that was made in the file instead of on the command line.

    Raises:
        ConfigError: `config.yaml` is not what the run was trained with, or is damaged and there is no checkpoint.
    """
    file = directory / "config.yaml"
    intact = is_intact(read_text(file))  # None if an older version wrote the file without a seal
    trained = None if state is None else state.get("config")
    if not isinstance(trained, Mapping):
        if intact is False:
            raise ConfigError(
                f"{file}: is not as the run wrote it, and no checkpoint says what it was; begin a new run, or, if you "
                "changed it on purpose, remove its last line"
            )
        return []
    assert state is not None
    problems: list[str] = []
    warnings: list[str] = []
    in_file = load_config(file, config.trust).redacted_dict() if intact is False else {}
    for key, old, new in _changes("", with_current_names(trained), config.redacted_dict()):
        changed_in_file = intact is False and _same(new, _value(in_file, key))
        problem = _change_problem(key, old, new)
        if problem or (key in MAY_INCREASE and changed_in_file):
            longer = f"; to train longer, then give {key}={new} with resume=" if not problem else ""
            problems.append(
                f"{file}: {key} is {new}, and the run was trained with {old} up to step {state.get('step')}; the file "
                f"is damaged or was edited: set {key} to {old} in it{longer}"
            )
        elif changed_in_file:
            warnings.append(f"{file}: {key} was {old}, is now {new}: the file was edited, or is damaged")
    if problems:
        raise ConfigError(*map(config.redact, problems))
    return [*map(config.redact, warnings)]


def check_data_means_the_same(directory: Path, state: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Compare the data's processor spec with that in the run's newest checkpoint.

    Measured numbers, such as means, may differ: more data is reported, not refused.

    Raises:
        DataError: names or the order of classes, columns, categories or tokens differ, and with them the
            meaning of the weights.
    """
    now = json.loads(json.dumps(dict(spec)))  # as state.json holds it
    then = {key: state[key] for key in now if key in state and key != "kind"}
    problems = [
        f"dataset: {key} was {truncate(json.dumps(old, ensure_ascii=False), 100)}, is now "
        f"{truncate(json.dumps(new, ensure_ascii=False), 100)}"
        for key, old, new in _changes("", then, {key: now[key] for key in then})
        if None not in (old, new) and not key.endswith("_target_") and not (_is_measured(old) and _is_measured(new))
    ]
    if problems:
        anew = shell_command(f"init.from={directory}")
        advice = f"give {directory} the data it was trained on, or begin a new run with {anew}"
        raise DataError(*problems, f"resume: the weights mean something else with this data; {advice}")


def _is_measured(value: object) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers)


def describe_jumps(run: TrainState, state: Mapping[str, Any], patience: int | None) -> list[str]:
    """Return lines about what a changed number of steps does to a run whose newest checkpoint has this `state`."""
    step, steps, best = (state.get(key) for key in ("step", "steps", "best"))
    if not isinstance(step, int) or not isinstance(steps, int) or not 0 < step <= steps or steps == run.steps:
        return []
    lines: dict[str, None] = {}
    for group in run.param_groups:
        was = run.rate(group, step - 1, steps)
        expected = run.rate(group, step, steps) if step < steps else was
        now = run.rate(group, step, run.steps)
        if abs(now - expected) > _MIN_LR_JUMP * max(now, expected):
            trains = "; its parameters had ended training" if was == 0 < now else ""
            lines[
                f"resume: the learning rate jumps from {was:.3g} at step {step} to {now:.3g} at step {step + 1}, "
                f"because the schedule now covers {format_count(run.steps, 'step')}, not {steps}{trains}"
            ] = None
    since = best.get("since") if isinstance(best, Mapping) else None
    if patience is not None and isinstance(since, int) and since >= patience:
        lines[f"resume: the run had stopped early (patience={patience}) and stays stopped: no step is added"] = None
    return [*lines]


def _change_problem(key: str, old: Any, new: Any) -> str | None:
    """Return why a resumed run must not change a key this way; None if it may."""
    if key in MAY_INCREASE:
        increases = isinstance(old, (int, float)) and new >= old
        return None if increases else f"{key} can only increase: was {old}, got {new}"
    if may_change_on_resume(key):
        return None
    return f"{key} cannot change from {old} to {new}; only these can: {', '.join(ALLOWED_ON_RESUME)}"


def _changes(prefix: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted keys with their old and new values where these differ; None stands for a missing key."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from _changes(f"{prefix}.{key}" if prefix else str(key), old.get(key), new.get(key))
    elif not _same(old, new):
        yield prefix, old, new


def _same(old: Any, new: Any) -> bool:
    return bool(old == new) or json.dumps(old, default=str) == json.dumps(new, default=str)  # NaN is not equal to NaN


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
