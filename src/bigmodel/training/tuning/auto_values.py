"""Resolve `batch_size=auto` and `optim.lr=auto` to numbers before a run starts.

The numbers are written into the run's config, so that the run stays a function of its config. Everything tried is
thrown away: the run is built anew, exactly as if the numbers had been typed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bigmodel.config.config import Config
from bigmodel.config.schema import Train
from bigmodel.config.validation import PLACEHOLDER_LR, auto_keys
from bigmodel.formatting import first_line, format_count, format_si
from bigmodel.runtime.stdout import print_line
from bigmodel.training.build import build_run
from bigmodel.training.tuning import batch_size as batch_trials
from bigmodel.training.tuning.lr_range import LRRangeResult, lr_range_test
from bigmodel.training.tuning.rank_cost import RankPlan

CHECKPOINTING = "device.checkpoint_activations"


@dataclass
class ResolvedConfig:
    """A config without `auto`, lines about what was found, and the result of a learning-rate range test."""

    config: Config
    lines: list[str] = field(default_factory=list)
    curve: LRRangeResult | None = None

    def write(self, directory: Path) -> None:
        """Write the curve and the trials of a learning-rate test, if there was one: see `LRRangeResult.write`."""
        if self.curve is not None:
            self.curve.write(directory)


def resolve_auto(config: Config, report: Callable[[str], object] = lambda text: None) -> ResolvedConfig:
    """Replace each `auto` by a value and print it; `report` gets a text about the one being resolved.

    Raises:
        ConfigError: parts do not go together, or there is nothing to tune.
        DataError: the data is missing or damaged.
        OutOfMemoryError: no batch fits.
    """
    found = ResolvedConfig(config)
    finders = {"batch_size": _resolve_batch_size, CHECKPOINTING: _resolve_checkpointing, "optim.lr": _resolve_lr}
    found_here = [*auto_keys(config.values), *_checkpointing_keys(config)]
    for key, finder in finders.items():
        if key in found_here:
            report(f"choosing {key}")
            finder(found)
            print_line(found.lines[-1])
            gc.collect()  # a model and its state, before they are built again
            torch.cuda.empty_cache()
    return found


def _resolve_batch_size(found: ResolvedConfig) -> None:
    fewest = Train(**found.config.values).num_microbatches
    run = build_run(_probe_config(found.config, {"batch_size": max(2, fewest)}))
    rates = batch_trials.measure_throughput(run)
    size = batch_trials.pick_batch_size(rates, run.device.torch_device)
    others = ", ".join(f"{other}: {rate:,.0f}" for other, rate in rates.items() if other != size)
    asked = found.config.values["device"]
    measured = {
        f"device.{key}": value
        for key, value in (
            ("precision", run.device.precision),
            ("channels_last", bool(run.device.channels_last)),
        )
        if asked.get(key) == "auto"
    }
    # the run keeps what was measured here: chosen anew, it might need more room
    found.config = found.config.with_values({"batch_size": size, **measured})
    found.lines.append(
        f"batch_size=auto: {size} ({rates[size]:,.0f} samples/s in {run.device.precision}; "
        f"measured, so another start may find another; {others})"
    )


def _resolve_lr(found: ResolvedConfig) -> None:
    found.curve = lr_range_test(build_run(_probe_config(found.config, {"ema": None})))
    found.config = found.config.with_values({"optim.lr": found.curve.chosen})
    found.lines.append(
        f"optim.lr=auto: {found.curve.chosen:g} (range test of {format_count(len(found.curve.rates), 'step')}, "
        f"{found.curve.rates[0]:g} to {found.curve.rates[-1]:.2g}; "
        f"loss after {format_count(found.curve.trial_steps, 'step')}: "
        f"{', '.join(f'{loss:.4g} at {rate:g}' for rate, loss in found.curve.trials.items())})"
    )


def _checkpointing_keys(config: Config) -> list[str]:
    return [CHECKPOINTING] if config.values["device"].get("checkpoint_activations") == "auto" else []


def _resolve_checkpointing(found: ResolvedConfig) -> None:
    """Choose by the memory that a step is planned to take, so that ranks choose alike."""
    run = build_run(_probe_config(found.config, {"dry_run": True}))
    state, room = run.state, run.device.memory_bytes
    choice, reason = "none", f"the memory of this {run.device.torch_device.type} is not known; set device.memory_gb"
    if room is not None:
        try:
            batch = next(run.loader.train_batches(0, 1))
            plan = RankPlan(state.model, state.task, batch, state.optimizers, run.device, run.settings)
            needed = plan.replicated().peak
        except RuntimeError as error:
            reason = f"the memory of this model is not known: {first_line(error)}"
        else:
            choice = "blocks" if needed > room else "none"
            reason = f"without, a step takes {format_si(needed, 'B')}, and there are {format_si(room, 'B')}"
    found.config = found.config.with_values({CHECKPOINTING: choice})
    found.lines.append(f"{CHECKPOINTING}=auto: {choice} ({reason})")


def _probe_config(config: Config, values: dict[str, object]) -> Config:
    """Return a config to try things with. Not compiled: shapes seen here would change what the run compiles."""
    if "optim.lr" in auto_keys(config.values):
        values["optim.lr"] = PLACEHOLDER_LR
    return config.with_values({**values, "device.compile": False})
