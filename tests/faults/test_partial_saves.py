"""A save by two ranks of which one is killed, or refused by the disk, at any of its system calls: old or new."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tracing
from bigmodel.errors import PeerLost
from bigmodel.runs import checkpoint
from bigmodel.runs.checkpoint_parts import PartialSaves
from bigmodel.runs.manifest import verify
from bigmodel.runtime.distributed import join_ranks
from bigmodel.runtime.launch import Place
from campaign import chosen, count
from forks import ForkServerProcess, _server, finished

CHANGING = ("openat", "write", "ftruncate", "fsync", "mkdir", "rename", "unlink", "rmdir")
REFUSALS = (0, errno.ENOSPC)  # 0: a kill


def _tensors(step: int) -> dict[str, dict[str, Any]]:
    weight = torch.arange(70.0).view(7, 10) + step
    return {"model": {"weight": weight, "scale": torch.tensor(1.0)}, "optimizer": {"0.0.momentum": weight / 3}}


def _rank(place: Place, root: Path, held: bool) -> None:
    from torch.distributed.tensor import distribute_tensor

    from bigmodel.runtime.sharding import shard_models

    code = 99
    with join_ranks(place, use_gpus=False):
        model = nn.Linear(10, 7, bias=False)
        world = shard_models([model], place, torch.device("cpu"), 2)
        mesh = model.weight.device_mesh
        saves = PartialSaves(world)
        try:
            for step in (1, 2):
                tensors = {
                    group: {
                        name: distribute_tensor(t, mesh, model.weight.placements) if t.ndim else t
                        for name, t in named.items()
                    }
                    for group, named in _tensors(step).items()
                }
                state = {"step": step, "best": {}}
                own = saves.own(tensors)
                if step == 2 and held:
                    os.kill(os.getpid(), signal.SIGSTOP)
                saves.commit(root, step, own, state, 2, False)
            code = 0
        except OSError as error:
            code = error.errno or 98
        except PeerLost:
            code = 97
        finally:
            os._exit(code)


def _start(here: Path) -> list[ForkServerProcess]:
    """Two ranks that have saved step 1 and stop themselves before they save step 2."""
    places = [Place(rank, 2, rank, str(here / "store"), True) for rank in range(2)]
    ranks = [_server.Process(target=_rank, args=(place, here / "root", True), daemon=False) for place in places]
    for rank in ranks:
        rank.start()
    for rank in ranks:  # each imports FSDP2
        tracing._until(partial(_is_stopped, rank), seconds=200)
    return ranks


def _is_stopped(rank: ForkServerProcess) -> bool:
    return tracing._status(rank.pid, "State").startswith("T")


def _points(victim: int, here: Path) -> list[tuple[int, str, int, int]]:
    """Every changing call that a rank's thread makes for an undisturbed save, times what can happen to it."""
    here.mkdir()
    ranks = _start(here)
    with tracing.attached(ranks[victim].pid, here / "trace"):
        os.kill(ranks[1 - victim].pid, signal.SIGCONT)
        assert [finished(rank) for rank in ranks] == [0, 0]
    points, seen = [], dict.fromkeys(CHANGING, 0)
    for call in tracing.calls(here / "trace", here):
        if call.name in seen and call.thread == str(ranks[victim].pid):
            seen[call.name] += 1
            if any(str(here / "root") in path for path in call.paths):
                points += [(victim, call.name, seen[call.name], number) for number in REFUSALS]
    return points


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_every_system_call_of_either_rank(tmp_path: Path, campaign: Callable[..., Any]) -> None:
    tracing.needs_strace()
    points = [point for victim in range(2) for point in _points(victim, tmp_path / f"points-{victim}")]
    key, quick, full = "PARTIAL_SAVES", 8, len(points)
    assert full > 50
    for trial in campaign("kill -9 or disk full at a system call of one rank's save", key=key, quick=quick, full=full):
        with trial:
            victim, name, nth, number = chosen(points, trial, count(key, quick, full))
            here = tmp_path / f"{trial.number}"
            here.mkdir()
            ranks = _start(here)
            what = f"error={errno.errorcode[number]}" if number else "signal=SIGKILL"
            inject = ("-e", f"trace={name}", "-e", f"inject={name}:{what}:when={nth}")
            with tracing.attached(ranks[victim].pid, here / "trace", *inject):
                os.kill(ranks[1 - victim].pid, signal.SIGCONT)
                codes = [finished(rank) for rank in ranks]
            told = f"rank {victim}: {name} no. {nth}, {what}: {codes}"
            _check(here / "root", codes, victim, number, told)
            shutil.rmtree(here)


def _check(root: Path, codes: list[int], victim: int, number: int, told: str) -> None:
    """What loads is bitwise step 1 or step 2; a rank that was killed ended the other, an error was told to both."""
    found, passed_over = checkpoint.load_newest(root)
    assert found is not None, told
    assert passed_over == [], told
    step = found.state["step"]
    for group, named in _tensors(step).items():
        assert found.tensors[group].keys() == named.keys(), told
        assert all(torch.equal(found.tensors[group][name], tensor) for name, tensor in named.items()), told
    for path in checkpoint.list_checkpoints(root):
        verify(path)
    if number == 0:
        assert codes[victim] == -signal.SIGKILL, told
        assert codes[1 - victim] in (0, 97), told
    else:
        assert codes in ([number, number], [0, 0]), told  # a removal that is refused is passed over
        assert codes == [0, 0] or step == 1 or victim == 0, told
