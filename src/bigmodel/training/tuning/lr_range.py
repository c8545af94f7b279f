"""Find `optim.lr=auto` by a learning-rate range test (Smith 2017, arXiv:1506.01186) and short trials.

The model is trained for a hundred steps while the rate grows from 1e-6 to 10. The loss first stands still, then falls,
then rises again. A tenth of the rate at which the smoothed loss is lowest is safe, but often a third or less of what
learns best. So from there short trials decide: from the same initial weights, on the same batches and the run's own
schedule, the model is trained at that rate and at its neighbors half a decade away, for as long as the loss at the end
is lower. The lowest rate whose loss is nearly as low as the best is chosen. All of it is a function of the config and
the seed.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigmodel.config.instantiate import instantiate
from bigmodel.config.validation import PLACEHOLDER_LR
from bigmodel.errors import ConfigError, DivergedError
from bigmodel.optim.schedules import Constant
from bigmodel.safe_files import replacing
from bigmodel.training.build import TrainingRun, build_optimizers
from bigmodel.training.state import TrainState

_LOWEST, _HIGHEST, _STEPS = 1e-6, 10.0, 100
_KEPT = 0.9  # of the smoothed loss, in each step
_EXPLODED = 4.0  # times the least smoothed loss
_BELOW = 10.0  # how far the first trial's rate lies under that of the least loss
_TRIAL_STEPS, _FEWEST_TRIAL_STEPS = 40, 10  # as many as the run has, within these
_GAIN = 0.85  # of a run longer than its trials: what is nearly as good in so few steps is safer over many
_FARTHEST = 4  # half decades from the first trial's rate

Followers = Sequence[tuple[dict[str, Any], float]]  # parameter groups, each with its share of optim.lr


@dataclass(frozen=True)
class LRRangeResult:
    """Rate and loss of each step, the smoothed loss, the chosen rate, and the losses of trials by their rates."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    chosen: float
    trials: Mapping[float, float] = field(default_factory=dict)
    trial_steps: int = 0

    def write(self, directory: Path) -> None:
        """Write `lr_range.csv`, `lr_trials.csv` and `lr_range.png`."""
        from bigmodel.training.tuning.curve_png import draw_curve  # only a range test needs it

        with (
            replacing(directory / "lr_range.csv") as scratch,
            scratch.open("x", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            table.writerow(("lr", "loss", "smoothed_loss"))
            table.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))
        with replacing(directory / "lr_trials.csv") as made, made.open("x", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("lr", "loss"))
            table.writerows(self.trials.items())
        least = min(self.smoothed)
        shown = [min(loss, _EXPLODED * least) for loss in self.smoothed]  # or the last point would flatten the rest
        title = f"learning-rate range test: optim.lr={self.chosen:g}"
        with replacing(directory / "lr_range.png") as file:
            draw_curve(file, self.rates, shown, mark=self.chosen, title=title, x="learning rate", y="loss")


def lr_range_test(run: TrainingRun) -> LRRangeResult:
    """Try learning rates on this run, which is spent afterwards. It was built with a placeholder for `optim.lr`.

    Only groups whose rate follows `optim.lr` are changed: Muon's `adamw_lr` stays, as in the run.

    Raises:
        ConfigError: no group follows it, or the loss falls at no rate.
    """
    built, _ = build_optimizers(run.config, run.state.model, lr=2 * PLACEHOLDER_LR)
    twins = [group for one in built for group in one.param_groups]
    groups = [group for optimizer in run.state.optimizers for group in optimizer.param_groups]
    followers = [
        (group, group["initial_lr"] / PLACEHOLDER_LR)
        for group, twin in zip(groups, twins, strict=True)
        if twin["lr"] != group["initial_lr"]
    ]
    if not followers:
        raise ConfigError("optim.lr: auto has nothing to tune: no parameter group uses optim.lr; set a number")
    first_weights = {name: tensor.clone() for name, tensor in run.state.model.state_dict().items()}
    rates, losses, smoothed = _rising(run, followers)
    if not rates or min(smoothed) == smoothed[0]:
        raise ConfigError("optim.lr: auto found no learning rate at which the loss falls; set a number")
    least = rates[smoothed.index(min(smoothed))]
    steps = min(_TRIAL_STEPS, max(_FEWEST_TRIAL_STEPS, run.state.steps))

    def try_rate(rate: float) -> float:
        run.state.model.load_state_dict(first_weights)
        return _trial(run, followers, rate, steps)

    trials = climb(least / _BELOW, try_rate)
    if not math.isfinite(min(trials.values())):
        raise ConfigError("optim.lr: auto found no learning rate at which the loss stays finite; set a number")
    chosen = choose(trials, losses[0], _GAIN if run.state.steps > steps else 1.0)
    return LRRangeResult(rates, losses, smoothed, chosen, dict(sorted(trials.items())), steps)


def climb(start: float, try_rate: Callable[[float], float]) -> dict[float, float]:
    """Return losses by rate: of `start`, then of its neighbors half a decade away for as long as they are better."""
    losses: dict[float, float] = {}

    def loss(place: int) -> float:
        rate = float(f"{start * 10 ** (place / 2):.2g}")
        if rate not in losses:
            losses[rate] = try_rate(rate) if rate <= _HIGHEST else math.inf
        return losses[rate]

    loss(0)
    place = 0
    while place < _FARTHEST and loss(place + 1) < loss(place):
        place += 1
    while place <= 0 and place > -_FARTHEST and loss(place - 1) < loss(place):
        place -= 1
    return losses


def choose(trials: Mapping[float, float], first_loss: float, share: float) -> float:
    """Return the lowest rate that lowers the loss by at least this fraction of what the best rate does."""
    least = min(trials.values())
    enough = first_loss - share * (first_loss - least) if least < first_loss else least
    return min(rate for rate, loss in trials.items() if loss <= max(enough, least))


def _job(run: TrainingRun, schedule: Callable[[float], float], steps: int) -> TrainState:
    """Return a train state of this run that begins at step 0, without optimizer state and without gradients, which a
    trial that diverged leaves behind.
    """
    run.state.model.zero_grad()
    for optimizer in run.state.optimizers:
        optimizer.state.clear()
    return TrainState(
        model=run.state.model,
        task=run.state.task,
        optimizers=run.state.optimizers,
        schedule=schedule,
        device=run.device,
        seed=run.settings.seed,
        steps=steps,
        accumulate=run.settings.accumulate,
        pieces=run.settings.pieces,
        clip_norm=run.settings.clip_norm,
    )


def _trial(run: TrainingRun, followers: Followers, rate: float, steps: int) -> float:
    """Return the mean loss of the last quarter of a run of `steps` steps, on the run's own schedule; infinite if it
    diverges.

    At a constant rate, lower rates would seem better than they are once the rate falls.
    """
    state = _job(run, instantiate("schedule", run.settings.schedule, run.config.trust), steps)
    for group, share in followers:
        group["initial_lr"] = share * rate
    losses: list[float] = []
    try:
        for batch in run.loader.train_batches(0, steps):
            state.train_step(batch)
            losses.append(state.pop_train_metrics()["loss"])
    except DivergedError:
        return math.inf
    last = losses[-max(1, len(losses) // 4) :]
    mean = math.fsum(last) / len(last)
    return mean if math.isfinite(mean) else math.inf


def _rising(run: TrainingRun, followers: Followers) -> tuple[list[float], list[float], list[float]]:
    """Return rates, losses and smoothed losses of steps whose rate grows."""
    state = _job(run, Constant(), _STEPS)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for batch in run.loader.train_batches(0, _STEPS):
        rate = _LOWEST * (_HIGHEST / _LOWEST) ** (state.step / (_STEPS - 1))
        for group, share in followers:
            group["initial_lr"] = share * rate
        try:
            state.train_step(batch)
            losses.append(state.pop_train_metrics()["loss"])
        except DivergedError:
            break
        rates.append(rate)
        average = _KEPT * average + (1 - _KEPT) * losses[-1]
        smoothed.append(average / (1 - _KEPT ** len(rates)))  # as if it had not begun at nothing
        if smoothed[-1] > _EXPLODED * min(smoothed):
            break
    return rates, losses, smoothed
