"""Memory of a step before it is taken: what a plan says is what real tensors take, with activations kept or not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.interfaces import Batch, Task
from bigmodel.models.gpt import GPT
from bigmodel.models.resnet import ResNet
from bigmodel.optim.adam import adamw
from bigmodel.optim.muon import Muon
from bigmodel.runtime.activation_checkpointing import checkpoint_blocks, is_checkpointed
from bigmodel.runtime.blocks import repeated_blocks
from bigmodel.runtime.device import Device
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.language_modelling import LanguageModelling
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training import placement
from bigmodel.training.state import TrainState
from bigmodel.training.tuning.cost import StepCost, estimate_step_cost
from bigmodel.training.tuning.saved_tensors import SavedTensors
from conftest import Answer


def _gpt() -> tuple[nn.Module, Task, Batch]:
    tokens = torch.randint(31, (4, 33))
    return (
        GPT(31, 32, layers=3, heads=2, width=32, dropout=0.1),
        LanguageModelling(),
        Batch(tokens[:, :-1], tokens[:, 1:]),
    )


def _resnet() -> tuple[nn.Module, Task, Batch]:
    batch = Batch(torch.randn(4, 3, 16, 16), torch.randint(10, (4,)))
    return ResNet((3, 16, 16), 10, width=8), Classification(CrossEntropy(), 10), batch


Case = Callable[[], tuple[nn.Module, Task, Batch]]


def _measured(model: nn.Module, task: Task, batch: Batch, device: Device) -> SavedTensors:
    with SavedTensors(model.train()).recording() as saved, device.autocast():
        task.loss(model, batch)
    return saved


def _planned(model: nn.Module, task: Task, batch: Batch, device: Device) -> StepCost:
    return estimate_step_cost(model, task, batch, [adamw(model, lr=0.1)], 1, device)


@pytest.mark.parametrize(("case", "precision"), [(_gpt, "fp32"), (_gpt, "bf16"), (_resnet, "fp32")])
def test_a_plan_has_the_bytes_of_real_tensors(case: Case, precision: str) -> None:
    model, task, batch = case()
    device = Device("cpu", precision=precision)  # type: ignore[arg-type]
    plan, real = _planned(model, task, batch, device), _measured(model, task, batch, device)
    assert plan.activation_bytes == pytest.approx(real.num_bytes, rel=0.02)
    assert plan.cast_bytes == real.cast_bytes
    assert (plan.cast_bytes > 0) == (precision == "bf16")
    assert plan.checkpointed_bytes == pytest.approx(real.checkpointed_bytes, rel=0.02)
    optimizer = adamw(model, lr=0.1)
    task.loss(model, batch)[0].backward()
    optimizer.step()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert plan.gradient_bytes == sum(gradient.nbytes for gradient in gradients)
    states = [value for state in optimizer.state.values() for value in state.values()]
    assert plan.optimizer_bytes == sum(value.nbytes for value in states)


@pytest.mark.parametrize(("case", "blocks"), [(_gpt, 3), (_resnet, 8)])
def test_blocks_that_compute_twice_keep_less_and_have_the_same_bits(case: Case, blocks: int) -> None:
    torch.manual_seed(0)
    model, task, batch = case()
    device = Device("cpu", threads=1)
    twin = copy.deepcopy(model)
    assert checkpoint_blocks(twin) == blocks == len([*repeated_blocks(model)])
    names = [*model.state_dict()]
    found: list[dict[str, Tensor]] = []
    for one in (model, twin):
        state = TrainState(
            model=one,
            task=task,
            optimizers=[adamw(one, lr=0.01)],
            schedule=lambda progress: 1.0,
            device=device,
            seed=0,
            steps=3,
            ema=0.5,
        )
        for _ in range(3):
            state.train_step(batch)
        found.append({**state.state_tensors()["optimizer"], **state.state_tensors()["model"]})
        assert [*state.state_tensors()["ema"]] == names
        assert is_checkpointed(state.eval_model) == is_checkpointed(one) == (one is twin)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    whole, plan = _measured(model, task, batch, device), _planned(twin, task, batch, device)
    kept = _measured(twin, task, batch, device).num_bytes
    assert kept < whole.num_bytes / 2
    assert kept < plan.activation_bytes == whole.checkpointed_bytes < whole.num_bytes


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 99, encoding="utf-8")
    model = ("model=gpt", "model.width=16", "model.layers=3", "model.heads=2", "device=cpu", "batch_size=32")
    return [*model, "dataset=text", f"dataset.path={text}", "dataset.context=32", "dry_run=true"]


def _bytes(row: str, name: str) -> float:
    number, unit = row.partition(f"{name} ")[2].replace(",", "").replace(";", "").split()[:2]
    return float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def test_a_plan_says_what_each_rank_needs(words: list[str], cli: Callable[..., Answer]) -> None:
    answer = cli(*words, "device.count=16", "device.memory_gb=0.0005", "ema=0.9", "pieces=32")
    assert answer.code == 0, answer.err
    lines = {line.strip().partition("  ")[0]: line.strip() for line in answer.out.splitlines()}
    whole, full, hybrid = (lines[name] for name in ("each rank", "if sharded", "if hybrid"))
    count = int(lines["parameters"].split()[1].replace(",", ""))
    table = 2 * 32 * 8 * 4  # of rotary positions
    assert _bytes(whole, "parameters") == pytest.approx(2 * (4 * count + table), rel=0.01)  # and their average
    assert _bytes(whole, "gradients") == pytest.approx(2 * 4 * count, rel=0.01)  # the newest piece's beside a sum's
    assert _bytes(whole, "optimizer states") == pytest.approx(2 * 4 * count, rel=0.01)
    assert _bytes(full, "optimizer states") == pytest.approx(2 * 4 * count / 16, rel=0.01)
    assert _bytes(hybrid, "optimizer states") == pytest.approx(2 * 4 * count / 8, rel=0.01)
    assert _bytes(whole, "activations") == _bytes(full, "activations") > 0
    assert f"; {2 * 4 * count * 15 / 16 / 1e3:.3g} kB sent a step" in whole
    assert "(does not fit 500 kB)" in whole
    assert "with device.checkpoint_activations=blocks" in whole
    assert "(fits 500 kB)" in full


def test_a_model_too_large_to_build_has_the_same_plan(
    words: list[str], cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = cli(*words, "device.count=4")
    monkeypatch.setattr("bigmodel.training.build.MAX_PLANNED_WITH_WEIGHTS", 1000)
    planned = cli(*words, "device.count=4")
    assert (built.code, planned.code) == (0, 0), planned.err
    new = [line for line in planned.out.splitlines() if line not in built.out.splitlines()]
    assert new == [next(line for line in planned.out.splitlines() if "planned by its shapes, without its" in line)]


@pytest.mark.parametrize(("room", "choice"), [("1", "none"), ("0.0001", "blocks"), ("null", "none")])
def test_activations_are_computed_twice_where_they_do_not_fit(
    room: str, choice: str, words: list[str], cli: Callable[..., Answer]
) -> None:
    answer = cli(*words, "device.checkpoint_activations=auto", f"device.memory_gb={room}")
    assert answer.code == 0, answer.err
    assert f"device.checkpoint_activations=auto: {choice} (" in answer.out
    assert ("the activations of 3 blocks are computed twice" in answer.out) == (choice == "blocks")


@pytest.mark.parametrize(
    ("build", "states"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1),
        (lambda p: torch.optim.AdamW(p, lr=0.1), 2),
        (lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True), 3),
        (lambda p: Muon([*p], lr=0.1), 1),
    ],
)
def test_the_states_of_an_optimizer_are_counted_and_not_guessed(build: Any, states: int) -> None:
    model = nn.Linear(30, 20, bias=False)
    whole = placement._state_bytes(model, False, [build(model.parameters())])
    assert whole == pytest.approx((2 + states) * 30 * 20 * 4, abs=16)  # torch's count of steps
