"""Saving beside training: what is committed is the state of its step, and a failure is never lost."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.interfaces import Batch
from bigmodel.models.mlp import MLP
from bigmodel.optim.schedules import Constant
from bigmodel.optim.sgd import sgd
from bigmodel.runs import checkpoint
from bigmodel.runtime.device import Device
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training import saver as saves
from bigmodel.training.saver import AsyncCheckpointer
from bigmodel.training.state import TrainState
from conftest import TINY, Answer, is_quiet

BATCH = Batch(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3]))


def _job() -> TrainState:
    torch.manual_seed(0)
    model = MLP((1, 8, 8), 10, hidden=[16])
    task = Classification(CrossEntropy(), 10)
    optimizers = [sgd(model)]
    return TrainState(
        model=model, task=task, optimizers=optimizers, schedule=Constant(), device=Device("cpu"), seed=0, steps=9
    )


def _weights(job: TrainState) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in job.model.state_dict().items()}


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Commits wait until the event is set."""
    release, commit = threading.Event(), checkpoint.commit

    def waiting(*arguments: Any, **rest: Any) -> Path:
        assert release.wait(30)
        return commit(*arguments, **rest)

    monkeypatch.setattr(checkpoint, "commit", waiting)
    return release


def test_training_goes_on_while_the_state_of_the_step_is_committed(tmp_path: Path, held: threading.Event) -> None:
    job, saving = _job(), AsyncCheckpointer(tmp_path / "checkpoints", {}, keep=2)
    job.train_step(BATCH)
    then = _weights(job)
    saving.save(job)
    for _ in range(3):
        job.train_step(BATCH)
        assert saving.completed() == []
    held.set()
    (saved,) = saving.completed(wait=True)
    assert (saved.step, Path(saved.path).name) == (1, "step-00000001")
    loaded = checkpoint.load(Path(saved.path))
    assert loaded.state["step"] == 1
    assert all(loaded.tensors["model"][name].equal(tensor) for name, tensor in then.items())
    assert not all(tensor.equal(then[name]) for name, tensor in _weights(job).items())
    assert saving.completed() == []
    assert saving.completed(wait=True) == []


def test_a_save_waits_for_the_one_before_and_each_is_told_once(tmp_path: Path) -> None:
    job, saving = _job(), AsyncCheckpointer(tmp_path / "checkpoints", {}, keep=2)
    for _ in range(3):
        job.train_step(BATCH)
        saving.save(job)
    assert [saved.step for saved in saving.completed(wait=True)] == [1, 2, 3]
    assert saving.completed(wait=True) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("save")]  # none that a data worker could inherit


def test_what_is_too_large_to_copy_is_committed_in_place(
    tmp_path: Path, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "MAX_COPY_BYTES", 0)
    monkeypatch.setattr(AsyncCheckpointer, "_copy_to_host", lambda self, tensors: pytest.fail("copied"))
    held.set()
    job, saving = _job(), AsyncCheckpointer(tmp_path / "checkpoints", {}, keep=2)
    job.train_step(BATCH)
    saving.save(job)
    assert (tmp_path / "checkpoints" / "step-00000001").is_dir()  # before save returned
    assert [saved.step for saved in saving.completed()] == [1]


def _full(*_: Any, **__: Any) -> Path:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("copied_at_most", [1e9, 0])
def test_a_failed_save_ends_the_run_and_names_the_last_good_step(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, copied_at_most: float
) -> None:
    monkeypatch.setattr(saves, "MAX_COPY_BYTES", copied_at_most)
    commit = checkpoint.commit
    monkeypatch.setattr(
        checkpoint, "commit", lambda root, step, *a, **k: (_full if step > 2 else commit)(root, step, *a, **k)
    )
    answer = cli(*TINY, "save_every=2steps", "evaluate_every=100steps")
    (line,) = is_quiet(answer, code=5)
    assert "No space left" in line
    assert "last saved step: 2" in line
    assert f"resume={answer.run.relative_to(answer.cwd)}" in line
    monkeypatch.undo()
    assert cli(f"resume={answer.run}").code == 0


def test_a_failed_save_is_told_even_where_training_fails_first(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()

    def late(*_: Any, **__: Any) -> Path:
        assert started.wait(30)
        return _full()

    monkeypatch.setattr(checkpoint, "commit", late)
    update = TrainState.train_step

    def diverging(self: TrainState, batch: Batch) -> None:
        if self.step == 1:
            started.set()
            self._parameters[0].data.fill_(float("nan"))
        update(self, batch)

    monkeypatch.setattr(TrainState, "train_step", diverging)
    answer = cli(*TINY, "save_every=1steps")
    assert answer.code == 4, answer.err
    assert "diverged at step 1" in answer.err
    log = (answer.run / "train.log").read_text()
    assert "No space left" in log
