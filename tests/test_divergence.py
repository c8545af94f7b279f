"""On a GPU nobody waits to learn that an update is unsound: the device leaves it out. The same path, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd.profiler import profile

from bigmodel.errors import DivergedError
from bigmodel.interfaces import Batch
from bigmodel.models.resnet import ResNet
from bigmodel.optim.adam import adam, adamw
from bigmodel.optim.muon import muon
from bigmodel.optim.muon_sgd import muon_sgd
from bigmodel.optim.schedules import Linear
from bigmodel.optim.sgd import sgd
from bigmodel.runtime.device import Device
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training.state import TrainState

OPTIMIZERS = {
    "sgd": lambda model: sgd(model),
    "adam": lambda model: adam(model),
    "adamw": lambda model: adamw(model, weight_decay=0.1),
    "muon": lambda model: muon(model, filters=True, weight_decay=0.1),
    "muon_sgd": lambda model: muon_sgd(model, bias_lr=0.1),
}
STEPS = 6


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "is_async", True)


def _job(optim: str) -> TrainState:
    torch.manual_seed(0)
    model = ResNet((3, 8, 8), 4, blocks=(1,), width=4)
    built = OPTIMIZERS[optim](model)
    return TrainState(
        model=model,
        task=Classification(CrossEntropy(), 4),
        optimizers=built if isinstance(built, Sequence) else [built],
        schedule=Linear(),
        device=Device("cpu"),
        seed=0,
        steps=100,
        clip_norm=1.0,
    )


def _batch(step: int, *, bad: bool = False) -> Batch:
    inputs = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    if bad:
        inputs[3, 1] = float("nan")
    return Batch(inputs, torch.arange(8) % 4, torch.arange(8) + 100 * step)


def _state(job: TrainState) -> dict[str, Tensor]:
    """Weights and optimizer state; what the norms saw is changed by a forward pass."""
    files = job.state_tensors()
    parameters = dict(job.model.named_parameters())
    return {name: t.clone() for name, t in (parameters | files["optimizer"]).items()}


def _go_on(job: TrainState, at_most: int) -> None:
    for step in range(job.step, job.step + at_most):
        job.train_step(_batch(step))


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_updates_that_nobody_waits_for(optim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _job(optim)
    _go_on(plain, STEPS)
    with pytest.raises(DivergedError) as at_once:
        plain.train_step(_batch(STEPS, bad=True))

    monkeypatch.setattr(Device, "is_async", True)
    job = _job(optim)
    with profile() as operations:
        job.train_step(_batch(0))
    called = {(event.name, event.cpu_parent and event.cpu_parent.name) for event in operations.function_events}
    assert "aten::_foreach_norm" in {name for name, _ in called}
    reading = {caller for name, caller in called if name in ("aten::item", "aten::nonzero")}
    assert reading <= {"aten::_fused_adam_", "aten::_fused_adamw_"}  # the CPU's own kernels read their step
    _go_on(job, STEPS - 1)
    before = _state(job)
    assert all(value.equal(before[name]) for name, value in _state(plain).items())  # to the last bit
    job.train_step(_batch(STEPS, bad=True))
    with pytest.raises(DivergedError) as later:
        _go_on(job, at_most=4)
    assert str(later.value) == str(at_once.value)
    assert f"diverged at step {STEPS} (samples 600, 601, 602, 603, 604, ... (8 in all)): loss nan" in str(later.value)
    assert job.step == STEPS
    assert all(value.equal(before[name]) for name, value in _state(job).items())


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize("ask", ["pop_train_metrics", "check_finite"])
def test_a_log_point_and_a_save_hear_of_it(ask: str) -> None:
    job = _job("sgd")
    job.train_step(_batch(0))
    job.train_step(_batch(1, bad=True))
    with pytest.raises(DivergedError, match="at step 1 "):
        getattr(job, ask)()


@pytest.mark.usefixtures("queued")
def test_an_optimizer_that_cannot_leave_a_step_out_is_waited_for() -> None:
    job = _job("sgd")
    optimizers = [torch.optim.SGD(job.model.parameters(), lr=0.1, foreach=True)]
    job = TrainState(
        model=job.model, task=job.task, optimizers=optimizers, schedule=Linear(), device=Device("cpu"), seed=0, steps=9
    )
    with pytest.raises(DivergedError, match="at step 0 "):
        job.train_step(_batch(0, bad=True))
