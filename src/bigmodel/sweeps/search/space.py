"""What each key of a search may become: Hydra's `interval`, `range` and `choice`, with `tag(log, ...)`.

An `interval` is of floats, or of whole numbers as `int(interval(1,9))`, with both its ends; a `range` ends before its
stop, as in Python. Imports neither Hydra nor Optuna.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any, Literal

from bigmodel.errors import ConfigError


@dataclass(frozen=True)
class Dimension:
    """Numbers from `low` to `high`, in steps or on a logarithmic scale, or one of `words`, which stand for `values`.

    `name` is the key as it is typed, with a `+` if it is new. The choices of a `group` are YAML files. `only` are the
    numbers of the combinations of groups that have such a key, empty where all have it.
    """

    name: str
    kind: Literal["float", "int", "choice"]
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    words: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    group: bool = False
    only: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        return self.name.lstrip("+")

    def suggest(self, trial: Any) -> float | str:
        """What an Optuna trial gives this parameter."""
        if self.kind == "choice":
            return str(trial.suggest_categorical(self.name, self.words))
        if self.kind == "int":
            return int(trial.suggest_int(self.name, self.low, self.high, step=int(self.step or 1), log=self.log))
        return float(trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log))

    def read(self, word: str) -> float | str:
        """What `suggest` gave, from the override it became."""
        return word if self.kind == "choice" else int(word) if self.kind == "int" else float(word)

    def value(self, given: float | str) -> Any:
        """What the config gets for what `suggest` gave."""
        return self.values[self.words.index(str(given))] if self.kind == "choice" else given

    def points(self) -> Sequence[float | str] | None:
        """All of its values in order; None where they are too many to be counted."""
        if self.kind == "choice":
            return self.words
        if self.kind == "int":
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        return None if self.step is None else _stepped(Decimal(repr(self.low)), Decimal(repr(self.step)), self.high)

    def extremes(self) -> tuple[float | str, ...]:
        """The values that show whether the config takes them all: every choice, or the lowest and the highest."""
        return self.words if self.kind == "choice" else (self.low, self.high)

    def __str__(self) -> str:
        if self.kind == "choice":
            return ", ".join(self.words)
        steps = f", in steps of {self.step:g}" if self.step not in (None, 1) else ""
        return f"{self.low:g} to {self.high:g}{steps}{', logarithmic' if self.log else ''}"


def parse_dimension(override: Any, group: bool) -> Dimension:
    """From an override with several values, as Hydra has parsed it.

    Raises:
        ConfigError: there is nothing in it to choose from, or its tags do not fit.
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
        return Dimension(name, "choice", words=tuple(choices), values=tuple(choices.values()), group=group)
    low, high, step = _interval(sweep) if override.is_interval_sweep() else _range(name, sweep)
    if low > high:
        raise ConfigError(f"{name}: nothing lies between {low:g} and {high:g}; write the lower one first")
    if tags and low <= 0:
        raise ConfigError(f"{name}: a logarithmic scale begins above 0, not at {low:g}")
    if tags and step is not None and (step != 1 or isinstance(low, float)):
        raise ConfigError(f"{name}: a logarithmic scale has no steps; use interval")
    return Dimension(name, "int" if isinstance(low, int) else "float", low, high, step, bool(tags))


def _interval(sweep: Any) -> tuple[float, float, float | None]:
    return sweep.start, sweep.end, None


def _range(name: str, sweep: Any) -> tuple[float, float, float | None]:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    steps = ceil((Decimal(repr(stop)) - Decimal(repr(start))) / Decimal(repr(step))) if step else 0
    if steps < 1:
        raise ConfigError(f"{name}: the range is empty")
    whole = all(isinstance(number, int) for number in (start, stop, step))
    kind = int if whole else float
    ends = sorted(kind(number) for number in (start, Decimal(repr(start)) + (steps - 1) * Decimal(repr(step))))
    return ends[0], ends[1], kind(abs(step))


def _stepped(low: Decimal, step: Decimal, high: float) -> list[float]:
    count = round((Decimal(repr(high)) - low) / step) + 1
    return [float(low + number * step) for number in range(count)]
