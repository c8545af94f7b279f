"""Numbers for what a config leaves to the machine: `batch_size=auto`, then `optim.lr=auto`.

Found before a run starts and written into its config, so that the run stays a function of its config. What is tried is
thrown away: the run is built anew, exactly as if the numbers had been typed.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bigmodel.config.config import STAND_IN_LR, Config, found_later
from bigmodel.runtime.stdout import say
from bigmodel.training.build import assemble
from bigmodel.training.tuning import batch_size as batch_trials
from bigmodel.training.tuning.lr_range import Curve, range_test


@dataclass
class Found:
    """A config without `auto`, what was found in words, and the curve of a range test."""

    config: Config
    lines: list[str] = field(default_factory=list)
    curve: Curve | None = None

    def write(self, directory: Path) -> None:
        """The curve and the trials of a rate, if there are any, as files: see `Curve.write`."""
        if self.curve is not None:
            self.curve.write(directory)


def find(config: Config) -> Found:
    """Find what is `auto`, and print it; nothing else is kept.

    Raises:
        ConfigError: parts do not fit together, or there is nothing to find.
        DataError: the data is missing or damaged.
        OutOfMemoryError: no batch fits.
    """
    found = Found(config)
    for key, finder in (("batch_size", _batch_size), ("optim.lr", _rate)):
        if key in found_later(config.tree):
            finder(found)
            say(found.lines[-1])
            gc.collect()  # a model and its state, before they are built again
            torch.cuda.empty_cache()
    return found


def _batch_size(found: Found) -> None:
    accumulate = found.config.tree["accumulate"]
    parts = assemble(_ready(found.config, {"batch_size": max(2, accumulate)}))
    rates = batch_trials.rates(parts)
    size = batch_trials.chosen(rates, parts.device.torch_device)
    others = ", ".join(f"{other}: {rate:,.0f}" for other, rate in rates.items() if other != size)
    asked = found.config.tree["device"]
    settled = {
        f"device.{key}": value
        for key, value in (
            ("precision", parts.device.precision),
            ("channels_last", bool(parts.device.channels_last)),
        )
        if asked.get(key) == "auto"
    }
    found.config = found.config.with_facts({"batch_size": size, **settled})  # measured anew, they might need more room
    found.lines.append(
        f"batch_size=auto: {size} ({rates[size]:,.0f} samples/s in {parts.device.precision}; "
        f"measured, so another start may find another; {others})"
    )


def _rate(found: Found) -> None:
    found.curve = range_test(assemble(_ready(found.config, {"ema": None})))
    found.config = found.config.with_facts({"optim.lr": found.curve.chosen})
    found.lines.append(
        f"optim.lr=auto: {found.curve.chosen:g} (range test of {len(found.curve.rates)} steps, "
        f"{found.curve.rates[0]:g} to {found.curve.rates[-1]:.2g}; loss after {found.curve.trial_steps} steps: "
        f"{', '.join(f'{loss:.4g} at {rate:g}' for rate, loss in found.curve.trials.items())})"
    )


def _ready(config: Config, facts: dict[str, object]) -> Config:
    """A config to try things with. Not compiled: shapes that are met here would change what the run compiles."""
    if "optim.lr" in found_later(config.tree):
        facts["optim.lr"] = STAND_IN_LR
    return config.with_facts({**facts, "device.compile": False})
