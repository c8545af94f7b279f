"""Learning-rate schedules: pure functions from progress through the run, in [0, 1], to a factor of the base rate.

All start with a linear warm-up over the fraction `warmup` of the run. Nothing is remembered between calls, so a
checkpoint needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bigmodel.constraints import Fraction, NonNegative, ProperFraction

__all__ = ["Constant", "Cosine", "Linear", "MultiStep", "OneCycle"]


@dataclass(frozen=True)
class Constant:
    """Constant base rate after the warm-up."""

    warmup: ProperFraction = 0.0

    def __call__(self, progress: float) -> float:
        """Return the factor of the base rate at `progress` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        return self.after_warmup((progress - self.warmup) / (1 - self.warmup))

    def after_warmup(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Linear(Constant):
    """Linear decay from the base rate to `final` times it."""

    warmup: ProperFraction = 0.0
    final: Fraction = 0.0

    def after_warmup(self, progress: float) -> float:
        return 1 + (self.final - 1) * progress


@dataclass(frozen=True)
class Cosine(Constant):
    """Cosine decay from the base rate to `final` times it (Loshchilov & Hutter 2017, SGDR, without restarts)."""

    warmup: ProperFraction = 0.0
    final: Fraction = 0.0

    def after_warmup(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class OneCycle(Cosine):
    """One-cycle schedule: cosine from `initial` to the base rate during the warm-up, then to `final` (Smith 2018)."""

    warmup: ProperFraction = 0.3
    initial: Fraction = 0.04
    final: Fraction = 0.0

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return self.initial + (1 - self.initial) * (1 - math.cos(math.pi * progress / self.warmup)) / 2
        return self.after_warmup((progress - self.warmup) / (1 - self.warmup))


@dataclass(frozen=True)
class MultiStep(Constant):
    """Step decay: times `gamma` at each milestone, a fraction of the run (He et al. 2015: 0.5 and 0.75, by 0.1)."""

    warmup: ProperFraction = 0.0
    milestones: Sequence[Fraction] = (0.5, 0.75)
    gamma: NonNegative = 0.1

    def __call__(self, progress: float) -> float:
        rise = progress / self.warmup if progress < self.warmup else 1.0
        return float(rise * self.gamma ** sum(progress >= milestone for milestone in self.milestones))


def step_midpoint(step: int, steps: int) -> float:
    """Return the progress at the middle of a step, so that neither the first nor the last update has a rate of zero."""
    return (step + 0.5) / steps
