"""A script for two ranks as anybody writes it, with torch alone, beside a run of two ranks: the same loss curve."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bigmodel.interfaces import Batch
from bigmodel.training.state import TrainState
from conftest import records
from forks import _server, finished
from several_ranks import LONG, SHORT, trained

STEPS, LR, MOMENTUM = 20, 0.2, 0.9


def _keep_what_is_trained_on() -> None:
    """Have rank 0 keep the first weights, and each batch of all ranks."""
    train_step, place = TrainState.train_step, Path("batches").absolute()
    place.mkdir()

    def keeping(self: TrainState, batch: Batch) -> None:
        if self.device.world.rank == 0:
            if self.step == 0:
                torch.save(self.model.state_dict(), place / "weights.pt")
            torch.save((batch.inputs, batch.targets), place / f"{self.step}.pt")
        train_step(self, batch)

    TrainState.train_step = keeping


def _script(rank: int, place: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    for parameter, value in zip(net.parameters(), torch.load(place / "weights.pt").values(), strict=True):
        parameter.data.copy_(value)
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    losses = []
    for step in range(STEPS):
        x, y = (part.chunk(2)[rank] for part in torch.load(place / f"{step}.pt"))
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach() / 2
        dist.all_reduce(mean)
        losses.append(float(mean))
    if rank == 0:
        torch.save(losses, place / "losses.pt")
    os._exit(0)


@pytest.mark.slow
def test_a_script_of_torch_alone_has_the_same_loss_curve(tmp_path: Path) -> None:
    words = (
        "optim=sgd",
        "optim.nesterov=false",
        "optim.weight_decay=0",
        f"optim.momentum={MOMENTUM}",
        f"optim.lr={LR}",
    )
    words = (*SHORT, *words, "schedule=constant", "batch_size=64", "epochs=1", f"limit_batches={STEPS}")
    run = trained(tmp_path, *words, "device.count=2", before=_keep_what_is_trained_on)
    ranks = [_server.Process(target=_script, args=(rank, tmp_path / "batches"), daemon=False) for rank in range(2)]
    for rank in ranks:
        rank.start()
    assert [finished(rank, LONG) for rank in ranks] == [0, 0]
    ours = [line["loss"] for line in records(run) if line["split"] == "train"]
    assert len(ours) == STEPS
    assert ours[-1] < 0.8 * ours[0]
    assert ours == pytest.approx(torch.load(tmp_path / "batches" / "losses.pt"), rel=1e-5)
