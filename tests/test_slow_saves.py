"""A rank that waits for its save lives as long as the save moves: a slow disk is none that hangs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from bigmodel.runs import checkpoint, tensor_files
from bigmodel.runtime.device import Device
from bigmodel.runtime.launch import Place
from bigmodel.runtime.world import World
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training import saver
from bigmodel.training.saver import AsyncCheckpointer
from bigmodel.training.state import TrainState
from conftest import only_run
from forks import finished
from several_ranks import LONG, SHORT, output_of, start

PARTS, PAUSE_S = 20, 0.1


class _Watch:
    """Whoever has started the ranks: counts the signs of life."""

    lock: int | None = None

    def __init__(self) -> None:
        self.signs: list[bool] = []

    def sign(self, rank: int, waits: bool = False) -> None:
        self.signs.append(waits)

    def note_step(self, rank: int, step: int) -> None:
        """Count nothing."""

    def note_run(self, directory: Path, lock: int) -> None:
        """Count nothing."""


def _slow_write(folder: Path, *_: object) -> dict[str, Any]:
    with (folder / "slow").open("wb", buffering=0) as file:
        for _ in range(PARTS):
            time.sleep(PAUSE_S)
            file.write(bytes(4096))
    return {}


def _dead_write(folder: Path, *_: object) -> dict[str, Any]:
    time.sleep(PARTS * PAUSE_S)
    return {}


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize(("write", "fewest", "most"), [(_slow_write, 12, PARTS + 8), (_dead_write, 0, 8)])
def test_a_rank_gives_signs_of_life_while_its_save_moves(
    write: Any, fewest: int, most: int, is_large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "_LOOK_S", 0.02)
    monkeypatch.setattr(saver, "MAX_COPY_BYTES", 0 if is_large else 1e9)
    monkeypatch.setattr(checkpoint.commit, "__defaults__", (False, write))
    watch, device, model = _Watch(), Device("cpu", threads=1), nn.Linear(2, 2)
    device.world = World(Place(0, 1, 0, watch=watch))
    state = TrainState(
        model=model,
        task=Classification(CrossEntropy(), 2),
        optimizers=[],
        schedule=lambda progress: 1.0,
        device=device,
        seed=0,
        steps=1,
    )
    saves = AsyncCheckpointer(tmp_path, {}, keep=1)
    saves.save(state)
    assert len(saves.completed(wait=True)) == 1
    assert fewest <= len(watch.signs) <= most
    assert not any(watch.signs)


def test_a_large_file_is_synced_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    expected = tensor_files.fsync_and_hash(tmp_path / "file")
    synced: list[int] = []
    monkeypatch.setattr(tensor_files, "_SYNCED_AT_ONCE", 4)
    monkeypatch.setattr(tensor_files, "_sync_range", lambda descriptor, first, count: synced.append(first))
    assert tensor_files.fsync_and_hash(tmp_path / "file") == expected
    assert synced == [0, 4, 8]


def _slow_disk() -> None:
    """Have each file of a checkpoint take twice as long as device.timeout, a little at a time."""
    sync = tensor_files.fsync_and_hash

    def slow(path: Path) -> dict[str, Any]:
        for _ in range(12):
            time.sleep(1)
            path.read_bytes()
        return sync(path)

    tensor_files.fsync_and_hash = slow
    saver._LOOK_S = 0.2


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["none", "full"])
def test_a_disk_that_is_slower_than_the_timeout_is_waited_for(shard: str, tmp_path: Path) -> None:
    words = (*SHORT, "limit_batches=2", "epochs=1", "device.count=2", f"device.shard={shard}", "device.timeout=5")
    assert finished(start(tmp_path, *words, before=_slow_disk), LONG) == 0, output_of(tmp_path)
    assert "warning" not in output_of(tmp_path)
    assert len(list(only_run(tmp_path).glob("checkpoints/step-*"))) == 1
