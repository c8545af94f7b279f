"""`optim.lr=auto`: the learning-rate range test (Smith 2017, arXiv:1506.01186).

The model is trained for a hundred steps while the rate grows from 1e-6 to 10. The loss first stands still, then falls,
then rises again. Chosen is a tenth of the rate at which the smoothed loss is least: by then the rate is too large
already, and shows it only some steps later.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from bigmodel.assembly import Parts, optimizers_of
from bigmodel.config import STAND_IN_LR
from bigmodel.durable import replacing
from bigmodel.errors import ConfigError, DivergedError
from bigmodel.job import Job
from bigmodel.schedules import Constant

_LOWEST, _HIGHEST, _STEPS = 1e-6, 10.0, 100
_KEPT = 0.9  # of the smoothed loss, in each step
_EXPLODED = 4.0  # times the least smoothed loss
_BELOW = 10.0  # how far the chosen rate lies under that of the least loss


@dataclass(frozen=True)
class Curve:
    """Each step's rate and loss, the smoothed loss, and the rate that was chosen."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    chosen: float

    def write(self, directory: Path) -> None:
        """`lr_range.csv` and `lr_range.png`."""
        from bigmodel.plot import plot  # only a range test needs it

        with (
            replacing(directory / "lr_range.csv") as scratch,
            scratch.open("x", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            table.writerow(("lr", "loss", "smoothed_loss"))
            table.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))
        least = min(self.smoothed)
        shown = [min(loss, _EXPLODED * least) for loss in self.smoothed]  # or the last point would flatten the rest
        title = f"learning-rate range test: optim.lr={self.chosen:g}"
        with replacing(directory / "lr_range.png") as file:
            plot(file, self.rates, shown, mark=self.chosen, title=title, x="learning rate", y="loss")


def range_test(parts: Parts) -> Curve:
    """Try the rates on these parts, which are spent after it. They were built with `optim.lr` at its stand-in.

    Only groups whose rate follows `optim.lr` are changed: Muon's `adamw_lr` stays what it is, as in the run.

    Raises:
        ConfigError: no group follows it, or the loss falls at no rate.
    """
    settings, model = parts.settings, parts.job.model
    job = Job(
        model=model,
        task=parts.job.task,
        optimizers=parts.job.optimizers,
        schedule=Constant(),
        device=parts.device,
        seed=settings.seed,
        steps=_STEPS,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
    )
    built, _ = optimizers_of(parts.config, model, lr=2 * STAND_IN_LR)
    twins = [group for one in built for group in one.param_groups]
    groups = [group for optimizer in job.optimizers for group in optimizer.param_groups]
    followers = [
        (group, group["initial_lr"] / STAND_IN_LR)
        for group, twin in zip(groups, twins, strict=True)
        if twin["lr"] != group["initial_lr"]
    ]
    if not followers:
        raise ConfigError("optim.lr: auto finds nothing here: no parameter's rate follows it; give a number")
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for batch in parts.data.train(0, _STEPS):
        rate = _LOWEST * (_HIGHEST / _LOWEST) ** (job.step / (_STEPS - 1))
        for group, share in followers:
            group["initial_lr"] = share * rate
        try:
            job.update(batch)
            losses.append(job.read_tally()["loss"])
        except DivergedError:
            break
        rates.append(rate)
        average = _KEPT * average + (1 - _KEPT) * losses[-1]
        smoothed.append(average / (1 - _KEPT ** len(rates)))  # as if it had not begun at nothing
        if smoothed[-1] > _EXPLODED * min(smoothed):
            break
    if not rates or min(smoothed) == smoothed[0]:
        raise ConfigError("optim.lr: auto found no rate at which the loss falls; give a number")
    least = rates[smoothed.index(min(smoothed))]
    return Curve(rates, losses, smoothed, float(f"{least / _BELOW:.2g}"))
