"""Annotated types that state a config key's allowed values in a signature, such as `lr: Positive`.

`lr: Positive` is a plain float to Python and mypy; `config` reads the range and refuses `optim.lr=-1` before torch is
imported. Imports nothing heavy, so that leaves may use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Bounds:
    """Bounds of a number; `above` and `below` are exclusive."""

    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def __str__(self) -> str:
        words = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return " and ".join(f"{word} {bound:g}" for word, bound in words.items() if not math.isinf(bound))


@dataclass(frozen=True)
class Pattern:
    """Regular expression that a whole text must match, and its meaning for messages."""

    pattern: str
    meaning: str


Positive = Annotated[float, Bounds(above=0)]
NonNegative = Annotated[float, Bounds(at_least=0)]
Fraction = Annotated[float, Bounds(at_least=0, at_most=1)]
ProperFraction = Annotated[float, Bounds(at_least=0, below=1)]
BetaShape = Annotated[float, Bounds(at_least=0, at_most=100)]  # Beta(a, a), 0: off
PositiveInt = Annotated[int, Bounds(at_least=1)]
NonNegativeInt = Annotated[int, Bounds(at_least=0)]
Seed = Annotated[int, Bounds(at_least=0, below=2**63)]
StepsOrEpochs = Annotated[
    str, Pattern(r"(?=.*[1-9])\d+(\.\d+)? ?(steps?|epochs?)", "a number with its unit, as 500steps or 1epoch")
]
