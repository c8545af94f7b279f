"""`batch_size=auto` and `optim.lr=auto`: numbers found before the run, which is then as if they had been typed."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from bigmodel.config.validation import PLACEHOLDER_LR
from bigmodel.interfaces import Batch
from bigmodel.training.build import build_run
from bigmodel.training.state import TrainState
from bigmodel.training.tuning import batch_size as batch_trials
from bigmodel.training.tuning import lr_range as range_test_module
from bigmodel.training.tuning.lr_range import choose, climb, lr_range_test
from conftest import TINY, Answer, fingerprint, is_quiet, only_run, records
from warm import only_sweep, swept

DEAF = """
import torch
def deaf(params, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1)
"""


@pytest.fixture(autouse=True)
def quick_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_trials, "PROBE_S", 0.0)
    monkeypatch.setattr(range_test_module, "_STEPS", 50)


def _config(run: Path) -> Any:
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_run_with_found_numbers_is_the_run_with_the_same_numbers_typed(
    cli: Callable[..., Answer], tmp_path: Path
) -> None:
    words = (*TINY, "model.dropout=0.5", "ema=0.9", "log_every=1steps", "optim.nesterov=false")
    found = cli(*words, "batch_size=auto", "optim.lr=auto")
    assert found.code == 0, found.err
    config = _config(found.run)
    size, rate = config["batch_size"], config["optim"]["lr"]
    assert size in (16, 32, 64)  # an epoch keeps 16 updates
    assert isinstance(rate, float)
    assert 1e-6 < rate <= 1
    _has_its_curve(found.run)
    batch_line, rate_line = found.out.splitlines()[:2]
    assert re.fullmatch(rf"batch_size=auto: {size} \([\d,]+ samples/s in fp32; .*\d+: [\d,]+\)", batch_line)
    assert rate_line.startswith(f"optim.lr=auto: {rate:g} (range test of ")
    assert batch_line in (found.run / "train.log").read_text()
    (tmp_path / "typed").mkdir()
    typed = cli(*words, f"batch_size={size}", f"optim.lr={rate}", cwd=tmp_path / "typed")
    assert fingerprint(typed.run) == fingerprint(found.run)
    assert records(typed.run) == records(found.run)
    assert _config(typed.run) == config
    assert cli(f"resume={found.run}", "epochs=3").code == 0
    assert cli(f"resume={typed.run}", "epochs=3").code == 0
    assert fingerprint(typed.run) == fingerprint(found.run)
    (line,) = is_quiet(cli(f"resume={found.run}", "optim.lr=auto"), code=2)
    assert f"optim.lr cannot change from {rate} to auto" in line


def _has_its_curve(run: Path) -> None:
    with (run / "lr_range.csv").open(newline="", encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    rates = [row["lr"] for row in rows]
    assert rates[0] == 1e-6
    assert rates == sorted(rates)
    least = min(rows, key=lambda row: row["smoothed_loss"])
    assert rows[-1]["smoothed_loss"] > 4 * least["smoothed_loss"] or rates[-1] == pytest.approx(10)
    with (run / "lr_trials.csv").open(newline="", encoding="utf-8") as file:
        trials = {float(row["lr"]): float(row["loss"]) for row in csv.DictReader(file)}
    assert _config(run)["optim"]["lr"] == min(trials, key=lambda rate: trials[rate])  # the trials are the whole run
    assert any(rate == pytest.approx(least["lr"] / 10, rel=0.05) for rate in trials)
    with Image.open(run / "lr_range.png") as image:
        assert image.format == "PNG"
        colours = [colour for _, colour in image.convert("RGB").getcolors(1 << 20)]
    assert any(red < 60 and blue > 150 for red, _, blue in colours)  # the curve
    assert any(red > 170 and blue < 90 for red, _, blue in colours)  # the mark


def test_a_dry_run_tells_what_would_be_found_and_makes_nothing(cli: Callable[..., Answer]) -> None:
    answer = cli(*TINY, "batch_size=auto", "optim.lr=auto", "dry_run=true")
    assert answer.code == 0, answer.err
    size = re.match(r"batch_size=auto: (\d+) ", answer.out)
    assert size is not None
    assert f", {size[1]} samples each" in answer.out
    assert re.search(r"(?m)^optim\.lr=auto: \S+ \(range test of ", answer.out)
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.slow
def test_each_job_of_a_sweep_finds_its_own(tmp_path: Path) -> None:
    code, said = swept(*TINY[:-1], "epochs=1", "optim.lr=auto", "optim=sgd,adam", cwd=tmp_path)
    assert code == 0, said
    runs = sorted(path.parent for path in only_sweep(tmp_path).glob("*/summary.json"))
    rates = [_config(run)["optim"]["lr"] for run in runs]
    assert len(set(rates)) == 2
    assert all(1e-5 < rate <= 1 for rate in rates)


def test_only_groups_that_follow_the_rate_are_tried() -> None:
    words = [*TINY, "optim=muon", "limit_batches=1", f"optim.lr={PLACEHOLDER_LR}", "lr_scale={layers.*: 2}"]
    parts = build_run(compose("train", words, ConfigSource((conf_directory(),), "train")))
    curve = lr_range_test(parts)
    muon, adamw = parts.state.optimizers
    base, twice = (group["initial_lr"] for group in muon.param_groups)
    assert base in (*curve.trials, pytest.approx(curve.rates[-1], rel=0.5))  # of the last trial
    assert twice == pytest.approx(2 * base)
    assert {group["initial_lr"] for group in adamw.param_groups} == {0.001, 0.002}
    assert all(map(math.isfinite, curve.losses))


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.01, [0.01, 0.032, 0.0032]),
        (0.1, [0.01, 0.032, 0.1, 0.32]),
        (0.001, [0.01, 0.032, 0.0032, 0.001, 0.00032]),
        (1e9, [0.01, 0.032, 0.1, 0.32, 1.0]),  # no farther than two decades
    ],
)
def test_trials_go_where_the_loss_is_lower(best: float, tried: list[float]) -> None:
    losses = climb(0.01, lambda rate: abs(math.log(rate / best)))
    assert list(losses) == tried
    assert list(climb(0.01, lambda rate: math.inf)) == [0.01, 0.032, 0.0032]


def test_trials_begin_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*TINY, "limit_batches=1", f"optim.lr={PLACEHOLDER_LR}"]
    begun, trial = [], range_test_module._trial

    def seen(parts: Any, *rest: Any) -> float:
        begun.append(next(parts.state.model.parameters()).clone())
        return trial(parts, *rest)

    monkeypatch.setattr(range_test_module, "_trial", seen)
    lr_range_test(build_run(compose("train", words, ConfigSource((conf_directory(),), "train"))))
    assert len(begun) > 1
    assert all(torch.equal(weights, begun[0]) for weights in begun)


def test_a_trial_that_diverged_leaves_the_next_as_it_was() -> None:
    words = [*TINY, "limit_batches=2", f"optim.lr={PLACEHOLDER_LR}", "optim.momentum=0", "optim.nesterov=false"]
    run = build_run(compose("train", words, ConfigSource((conf_directory(),), "train")))
    followers = [(group, 1.0) for group in run.state.optimizers[0].param_groups]
    weights = {name: tensor.clone() for name, tensor in run.state.model.state_dict().items()}
    reached = []
    for rate in (0.01, 1e38, 0.01):
        run.state.model.load_state_dict(weights)
        reached.append(range_test_module._trial(run, followers, rate, 4))
    assert reached[1] == math.inf
    assert reached[0] == reached[2] < 10


def test_nearly_the_best_at_a_lower_rate_is_chosen() -> None:
    trials = {0.01: 1.5, 0.03: 1.1, 0.1: 1.0, 0.3: math.inf}
    assert choose(trials, 2.0, 0.85) == 0.03
    assert choose(trials, 2.0, 1.0) == 0.1
    assert choose(trials, 0.5, 0.85) == 0.1  # none learned anything
    assert choose({0.01: 1.0, 0.1: 1.0}, 2.0, 1.0) == 0.01


@pytest.mark.slow
def test_a_found_rate_learns_about_as_much_as_the_best_of_a_grid(cli: Callable[..., Answer], tmp_path: Path) -> None:
    """With AdamW, a tenth of the rate of the least loss would learn far less in the twenty steps of an epoch."""
    words = ("device=cpu", "model=mlp", "optim=adamw", "epochs=1", "evaluate_every=1epoch")
    reached = {}
    for rate in ("auto", "0.001", "0.01", "0.1"):
        (tmp_path / rate).mkdir()
        answer = cli(*words, f"optim.lr={rate}", cwd=tmp_path / rate)
        assert answer.code == 0, answer.err
        reached[rate] = json.loads((answer.run / "summary.json").read_text())["best"]["value"]
    assert reached["auto"] > max(reached.values()) - 0.1, reached


@pytest.mark.parametrize(
    ("word", "told"),
    [("optim.momentum=auto", "optim.momentum"), ("accumulate=auto", "accumulate"), ("batch_size=large", "batch_size")],
)
def test_auto_where_there_is_nothing_to_find_is_one_line(cli: Callable[..., Answer], word: str, told: str) -> None:
    (line,) = is_quiet(cli(*TINY, word), code=2)
    assert line.startswith(f"{told}: must be ")


def test_an_optimizer_that_ignores_its_rate_has_none_to_find(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "deaf_pkg.py").write_text(DEAF)
    own = ("~optim", "+optim={_target_: deaf_pkg.deaf, lr: auto}", "trust=[deaf_pkg]")
    (line,) = is_quiet(cli(*TINY, *own, cwd=tmp_path), code=2)
    assert "no parameter group uses optim.lr" in line
    assert not (tmp_path / "outputs").exists()


def test_a_loss_that_never_falls_is_told(cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    number = iter(range(1000))
    monkeypatch.setattr(TrainState, "pop_train_metrics", lambda job: {"loss": 2.0 + next(number)})
    (line,) = is_quiet(cli(*TINY, "optim.lr=auto"), code=2)
    assert "no learning rate at which the loss falls" in line


@pytest.mark.parametrize(("most", "code"), [(64, 0), (0, 6)])
def test_a_batch_that_does_not_fit_is_not_chosen(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, most: int, code: int
) -> None:
    update = TrainState.train_step

    def small(job: TrainState, batch: Batch) -> None:
        if len(batch.targets) > most:
            raise MemoryError
        update(job, batch)

    monkeypatch.setattr(TrainState, "train_step", small)
    answer = cli(*TINY, "batch_size=auto")
    assert answer.code == code, answer.err
    if code:
        assert "batch_size" in is_quiet(answer, code=code)[0]
        assert list(answer.cwd.iterdir()) == []
    else:
        assert _config(only_run(answer.cwd))["batch_size"] <= most


def test_what_would_take_too_much_memory_is_not_tried(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_trials, "_free_memory", lambda: 1.0)
    answer = cli(*TINY, "batch_size=auto", "accumulate=3", "dry_run=true")
    assert answer.out.startswith("batch_size=auto: 16 ("), answer.err


def test_the_smallest_that_is_as_good_is_chosen_on_a_cpu_and_the_largest_on_a_gpu() -> None:
    rates = {16: 50.0, 32: 90.0, 64: 98.0, 128: 100.0, 256: 99.0}
    assert batch_trials.pick_batch_size(rates, torch.device("cpu")) == 64
    assert batch_trials.pick_batch_size(rates, torch.device("cuda", 0)) == 256


def test_trials_read_the_memory_that_is_free() -> None:
    assert 1e6 < batch_trials._free_memory() <= float("inf")
    assert json.dumps(batch_trials._free_memory())
