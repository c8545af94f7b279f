"""Search space: what each key of a search may become, from Hydra's `interval`, `range` and `choice`.

An `interval` is of floats, or of whole numbers as `int(interval(1,9))`, with both its ends; a `range` ends before its
stop, as in Python; `tag(log, ...)` makes either logarithmic. Imports neither Hydra nor Optuna.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from math import ceil
from typing import Any, Literal

from bigmodel.errors import ConfigError

_SAVED_KEYS = {"type": "kind", "choices": "words"}  # fields that have another key in search.json


@dataclass(frozen=True)
class Dimension:
    """One searched key: numbers from `low` to `high`, or one of `choices`, which stand for `values`.

    Numbers may have a `step` or a logarithmic scale. `name` is the key as it is typed, with a `+` if it is new. The
    choices of a config `group` are YAML files. `only` are the indices of the base configs that have such a key, empty
    if all have it.
    """

    name: str
    type: Literal["float", "int", "choice"]
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    group: bool = False
    only: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        return self.name.lstrip("+")

    def suggest(self, trial: Any) -> float | str:
        """Return the value that an Optuna trial suggests."""
        if self.type == "choice":
            return str(trial.suggest_categorical(self.name, self.choices))
        if self.type == "int":
            return int(trial.suggest_int(self.name, self.low, self.high, step=int(self.step or 1), log=self.log))
        return float(trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log))

    def parse(self, text: str) -> float | str:
        """Return the suggested value from the override that it became."""
        return text if self.type == "choice" else int(text) if self.type == "int" else float(text)

    def config_value(self, suggested: float | str) -> Any:
        """Return what the config gets for a suggested value."""
        return self.values[self.choices.index(str(suggested))] if self.type == "choice" else suggested

    def grid(self) -> Sequence[float | str] | None:
        """Return all values in order, or None if they are continuous."""
        if self.type == "choice":
            return self.choices
        if self.type == "int":
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        return None if self.step is None else _float_range(Decimal(repr(self.low)), Decimal(repr(self.step)), self.high)

    def extremes(self) -> tuple[float | str, ...]:
        """Return the values to validate: every choice, or the lowest and the highest number."""
        return self.choices if self.type == "choice" else (self.low, self.high)

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their keys of `search.json`."""
        return {_SAVED_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Dimension:
        """Return the dimension that `to_json` wrote. Raises TypeError for other keys."""
        names = {key: name for name, key in _SAVED_KEYS.items()}
        fields: dict[str, Any] = {names.get(key, key): value for key, value in saved.items()}
        fields |= {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**fields)

    def __str__(self) -> str:
        if self.type == "choice":
            return ", ".join(self.choices)
        steps = f", in steps of {self.step:g}" if self.step not in (None, 1) else ""
        return f"{self.low:g} to {self.high:g}{steps}{', logarithmic' if self.log else ''}"


def parse_dimension(override: Any, group: bool) -> Dimension:
    """Return the dimension of an override with several values, as Hydra has parsed it.

    Raises:
        ConfigError: the override has no value to choose from, or its tags do not fit.
    """
    name, sweep = override.get_key_element(), override.value()
    tags = set(getattr(sweep, "tags", ()))
    if tags - {"log"}:
        raise ConfigError(f"{name}: there is no tag '{min(tags - {'log'})}'; log is the only one")
    if not (override.is_interval_sweep() or override.is_range_sweep()):
        if tags:
            raise ConfigError(f"{name}: choices have no logarithmic scale; tag(log, ...) goes with interval and range")
        values = [override._convert_value(value) for value in override.sweep_iterator()]
        choices = dict(zip(override.sweep_string_iterator(), values, strict=True))
        if not choices:
            raise ConfigError(f"{name}: nothing to choose from")
        return Dimension(name, "choice", choices=tuple(choices), values=tuple(choices.values()), group=group)
    low, high, step = _interval_bounds(sweep) if override.is_interval_sweep() else _range_bounds(name, sweep)
    if low > high:
        raise ConfigError(f"{name}: nothing lies between {low:g} and {high:g}; write the lower one first")
    if tags and low <= 0:
        raise ConfigError(f"{name}: a logarithmic scale begins above 0, not at {low:g}")
    if tags and step is not None and (step != 1 or isinstance(low, float)):
        raise ConfigError(f"{name}: a logarithmic scale has no steps; use interval")
    return Dimension(name, "int" if isinstance(low, int) else "float", low, high, step, bool(tags))


def _interval_bounds(sweep: Any) -> tuple[float, float, float | None]:
    return sweep.start, sweep.end, None


def _range_bounds(name: str, sweep: Any) -> tuple[float, float, float | None]:
    """Return the lowest value, the highest value and the positive step of a range."""
    start, stop, step = sweep.start, sweep.stop, sweep.step
    num_steps = ceil((Decimal(repr(stop)) - Decimal(repr(start))) / Decimal(repr(step))) if step else 0
    if num_steps < 1:
        raise ConfigError(f"{name}: the range is empty")
    number_type = int if all(isinstance(number, int) for number in (start, stop, step)) else float
    last = Decimal(repr(start)) + (num_steps - 1) * Decimal(repr(step))
    low, high = sorted((number_type(start), number_type(last)))
    return low, high, number_type(abs(step))


def _float_range(low: Decimal, step: Decimal, high: float) -> list[float]:
    num_values = round((Decimal(repr(high)) - low) / step) + 1
    return [float(low + index * step) for index in range(num_values)]
