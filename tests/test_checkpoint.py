"""Checkpoints: whole or not at all, and never silently wrong."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.errors import StorageError
from bigmodel.runs import checkpoint, tensor_files
from bigmodel.runs.manifest import verify

STATE = {"step": 3, "best": {"value": 0.1 + 0.2, "step": 2}, "tally": None}


def _tensors(value: float = 1.0) -> dict[str, dict[str, Tensor]]:
    weight = torch.full((3, 4), value)
    model = {"weight": weight, "tied": weight, "turned": weight.T, "part": weight[1], "none": torch.empty(0)}
    return {"model": model, "optimizer": {"0.0.step": torch.tensor(7.0)}}


def _save(root: Path, step: int, value: float = 1.0) -> Path:
    return checkpoint.save(root, step, _tensors(value), STATE | {"step": step})


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    path = _save(tmp_path / "checkpoints", 3, 0.1)
    assert path.name == "step-00000003"
    loaded = checkpoint.load(path)
    assert loaded.state == STATE
    for name, group in _tensors(0.1).items():
        assert loaded.tensors[name].keys() == group.keys()
        for key, tensor in group.items():
            assert loaded.tensors[name][key].equal(tensor), key
            assert loaded.tensors[name][key].dtype == tensor.dtype


def test_the_umask_says_who_may_read_a_checkpoint(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = _save(tmp_path, 1)
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in path.iterdir()} == dict.fromkeys(
        ("MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json"), 0o640
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_every_dtype_survives(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(5).to(dtype)
    path = checkpoint.save(tmp_path, 0, {"model": {"a": tensor}}, {})
    assert checkpoint.load(path).tensors["model"]["a"].equal(tensor)


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def _link(file: Path) -> None:
    kept = file.with_name("elsewhere")
    file.rename(kept)
    file.symlink_to(kept)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flip": _flip,
    "truncate": _truncate,
    "zero": _zero,
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "link": _link,
    "directory": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_the_one_before_is_taken(tmp_path: Path, name: str, damage: str) -> None:
    if name == "MANIFEST.json" and damage in ("flip", "link"):
        pytest.skip("the manifest vouches for the others; a link to itself or a changed blank harms nothing")
    _save(tmp_path, 1, 1.0)
    path = _save(tmp_path, 2, 2.0)
    DAMAGE[damage](path / name)
    with pytest.raises(StorageError, match=name):
        checkpoint.load(path)
    found, passed_over = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert found.path.name == "step-00000001"
    (line,) = passed_over
    assert name in line
    assert "falling back" in line


def test_swapped_files_are_noticed(tmp_path: Path) -> None:
    path, other = _save(tmp_path, 1, 1.0), _save(tmp_path, 2, 2.0)
    swap = tmp_path / "swap"
    for source, target in ((path, swap), (other, path), (swap, other)):
        (source / "model.safetensors" if source != swap else swap).rename(
            target / "model.safetensors" if target != swap else swap
        )
    for damaged in (path, other):
        with pytest.raises(StorageError, match=r"model\.safetensors"):
            checkpoint.load(damaged)
    assert checkpoint.load_newest(tmp_path)[0] is None


def test_a_swapped_manifest_entry_cannot_reach_outside(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    (tmp_path / "outside.safetensors").write_bytes((path / "model.safetensors").read_bytes())
    manifest["files"]["../outside.safetensors"] = manifest["files"]["model.safetensors"]
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match="outside"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "manifest", ["[]", "{}", '{"files": []}', '{"files": {"a": 1}, "schema": 1}', '{"files": {}, "schema": 99}', "null"]
)
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, manifest: str) -> None:
    path = _save(tmp_path, 1)
    (path / "MANIFEST.json").write_text(manifest)
    with pytest.raises(StorageError):
        checkpoint.load(path)


def test_an_absurd_header_is_refused_at_once(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    file = path / "model.safetensors"
    file.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest["files"][file.name] = checkpoint.fsync_and_hash(file)
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match="cannot be read"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("keep", "also", "left"),
    [
        (1, None, [4, 5]),
        (2, None, [4, 5]),
        (3, None, [3, 4, 5]),
        (2, 1, [1, 4, 5]),
        (2, 5, [4, 5]),
        (9, 1, [1, 2, 3, 4, 5]),
    ],
)
def test_pruning_keeps_two_at_least_and_the_best(tmp_path: Path, keep: int, also: int | None, left: list[int]) -> None:
    for step in range(1, 6):
        _save(tmp_path, step)
    checkpoint.prune(tmp_path, keep, also)
    assert [int(path.name[5:]) for path in checkpoint.list_checkpoints(tmp_path)] == left[::-1]
    for path in checkpoint.list_checkpoints(tmp_path):
        verify(path)


def test_steps_are_ordered_by_number_beyond_eight_digits(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 5):
        _save(tmp_path, step)
    (tmp_path / "step-x").mkdir()
    (tmp_path / "step-00000007").write_text("a file")
    assert [int(path.name[5:]) for path in checkpoint.list_checkpoints(tmp_path)] == [100_000_000, 99_999_999, 5]


def test_stale_temporaries_are_swept_and_nothing_else(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    shutil.copytree(path, tmp_path / ".tmp-0123")
    checkpoint.write_json(tmp_path / "last.json", {"step": 1})
    checkpoint.remove_stale_temporaries(tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["last.json", "step-00000001"]
    verify(path)


def test_an_interrupted_save_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1)
    monkeypatch.setattr(os, "rename", _dies)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as a killed process tidies nothing
    with pytest.raises(KeyboardInterrupt):
        _save(tmp_path, 2)
    found, passed_over = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert (found.path.name, passed_over) == ("step-00000001", [])


def _dies(*_: object) -> None:
    raise KeyboardInterrupt


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Each fsync, rename and file write in order, with the name of what it was about."""
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def recording_fsync(descriptor: int) -> None:
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def recording_rename(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        calls.append(("rename", os.fspath(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "rename", recording_rename)
    return calls


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name a descriptor")
def test_files_then_directory_then_rename_then_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "checkpoints"
    root.mkdir()
    calls = _recorded(monkeypatch)
    path = _save(root, 1)
    scratch = Path(calls[0][1]).parent
    assert scratch.parent == root
    assert scratch.name.startswith(".tmp-")
    *within, directory, rename, parent = calls
    synced = [Path(name).name for kind, name in within if kind == "fsync" and name != str(scratch)]
    assert set(synced[:3]) == {"model.safetensors", "optimizer.safetensors", "state.json"}
    assert synced[3].startswith(".tmp-")  # what becomes the manifest, last
    assert within[within.index(("fsync", str(scratch / synced[3]))) + 1] == ("rename", str(scratch / "MANIFEST.json"))
    assert directory == ("fsync", str(scratch))
    assert rename == ("rename", str(path))
    assert parent == ("fsync", str(root))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name a descriptor")
def test_json_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _recorded(monkeypatch)
    checkpoint.write_json(tmp_path / "last.json", {"step": 1})
    assert [kind for kind, _ in calls] == ["fsync", "rename", "fsync"]
    assert calls[1][1] == str(tmp_path / "last.json")
    assert calls[2][1] == str(tmp_path)


@pytest.mark.parametrize("call", range(6))
def test_a_full_disk_at_any_sync_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    _save(tmp_path, 1)
    left = [call]
    fsync = os.fsync

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        _save(tmp_path, 2)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    committed = [path.name for path in checkpoint.list_checkpoints(tmp_path)]
    assert "step-00000001" in committed
    for path in checkpoint.list_checkpoints(tmp_path):
        verify(path)
    assert not list(tmp_path.glob(".tmp-*"))


def test_what_points_at_a_checkpoint_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill or an error at any moment of a save leaves pointers that name a checkpoint which is there."""
    root = tmp_path / "checkpoints"
    root.mkdir()

    def commit(step: int) -> None:
        best = {"step": step, "value": step / 10, "since": 0}
        checkpoint.commit(root, step, _tensors(), STATE | {"step": step, "best": best}, keep=2)

    commit(1)
    calls = _recorded(monkeypatch)
    commit(2)
    renamed = [Path(name).name for kind, name in calls if kind == "rename"]
    assert renamed[renamed.index("step-00000002") + 1 :][:2] == ["last.json", "best.json"]
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        commit(3)
    assert [json.loads((root / name).read_text())["step"] for name in ("last.json", "best.json")] == [2, 2]


def test_a_full_disk_under_safetensors_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    _save(tmp_path, 1)
    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(OSError, match="No space") as caught:
        _save(tmp_path, 2)
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_the_same_step_again_replaces_a_damaged_one(tmp_path: Path) -> None:
    _flip(_save(tmp_path, 1, 1.0) / "model.safetensors")
    loaded = checkpoint.load(_save(tmp_path, 1, 2.0))
    assert loaded.tensors["model"]["weight"].equal(torch.full((3, 4), 2.0))


ODD = {
    "step": [-1, 2, True, "1", None, 1.0, math.nan],
    "steps": [-1, "9", 2**64],
    "tally": [5, ["a"], [math.nan], {"a": "1"}, [2**70], [True]],
    "best": [[1], {"value": 1.0}, {"value": math.inf, "step": 1}, {"value": 1.0, "step": -1}, "x", 5],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ODD.items() for value in values], ids=str)
def test_a_state_that_no_run_wrote_is_damage(tmp_path: Path, key: str, value: Any) -> None:
    for step in (1, 2):
        state = STATE | {"step": step, "steps": 9} | ({key: value} if step == 2 else {})
        if key == "step" and value == 2:
            state["step"] = 1
        checkpoint.save(tmp_path, step, _tensors(0.0), state)
    found, said = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert found.path.name == "step-00000001"
    (line,) = said
    assert f"step-00000002/state.json: {key}" in line
    assert line.isprintable()
