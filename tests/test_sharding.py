"""A model divided among ranks is trained to the bits of one process that holds it whole, and saved in parts."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.commands.ranks import _check_seen
from bigmodel.errors import ConfigError, StorageError
from bigmodel.interfaces import Batch
from bigmodel.models.gpt import GPT
from bigmodel.models.mlp import MLP
from bigmodel.models.weights.lora import LoRA
from bigmodel.optim.adam import adamw
from bigmodel.optim.muon import Muon, muon
from bigmodel.optim.sgd import sgd
from bigmodel.runs import checkpoint, tensor_files
from bigmodel.runs.checkpoint_parts import PartialSaves
from bigmodel.runs.checkpoint_path import checkpoint_path
from bigmodel.runtime.batch_norm import share_batch_norms
from bigmodel.runtime.device import Device
from bigmodel.runtime.distributed import current_world
from bigmodel.runtime.launch import Place
from bigmodel.runtime.world import own_rows
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.language_modelling import LanguageModelling
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training.evaluation import evaluate
from bigmodel.training.placement import describe_division, place_model
from bigmodel.training.saver import AsyncCheckpointer
from bigmodel.training.state import TrainState
from conftest import Answer, records
from several_ranks import CLASSES, SHORT, on_ranks, output_of, pictures, texts, trained

pytestmark = pytest.mark.usefixtures("one_thread")


def _gpt() -> nn.Module:
    return GPT(17, 8, layers=2, heads=2, width=12)


def _adapted() -> nn.Module:
    model = GPT(17, 8, layers=2, heads=2, width=12)
    LoRA(rank=2).adapt(model)
    return model


def _norms() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, CLASSES))
    share_batch_norms(model)
    return model


PICTURES = (pictures, (8, 8, 5, 8, 1, 8, 8, 8), lambda: Classification(CrossEntropy(), CLASSES))
TEXTS = (texts, (6, 7, 2, 1, 6, 6, 6, 1), LanguageModelling)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Any], tuple[Any, ...], float | None]] = {
    "gpt": (_gpt, lambda model: adamw(model, lr=0.01), TEXTS, None),
    "clipped": (_gpt, lambda model: adamw(model, lr=0.01), TEXTS, 0.5),
    "muon": (_gpt, lambda model: muon(model, lr=0.01), TEXTS, None),
    "lora": (_adapted, lambda model: adamw(model, lr=0.01), TEXTS, None),
    "sgd": (lambda: MLP([3, 4, 4], CLASSES, hidden=[12]), lambda model: sgd(model, lr=0.05), PICTURES, None),
    "norms": (_norms, lambda model: sgd(model, lr=0.05), PICTURES, None),
}


def _state(name: str, device: Device, pieces: int = 1) -> tuple[TrainState, list[Batch]]:
    torch.manual_seed(0)
    make_model, make_optimizer, (make_batch, counts, make_task), clip_norm = CASES[name]
    model = make_model()

    def build(model: nn.Module) -> list[torch.optim.Optimizer]:
        built = make_optimizer(model)
        return built if isinstance(built, list) else [built]

    average = place_model(model, True, device, build) if device.count > 1 else None
    optimizers = build(model)
    state = TrainState(
        model=model,
        task=make_task(),
        optimizers=optimizers,
        schedule=lambda progress: 1.0,
        device=device,
        seed=0,
        steps=8,
        accumulate=pieces,
        clip_norm=clip_norm,
        ema=0.9,
        average=average,
    )
    torch.manual_seed(1)
    return state, [make_batch(count) for count in counts]


def _full(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).clone()


def _whole(state: TrainState) -> dict[str, Tensor]:
    return {
        f"{file}.{key}": _full(value) for file, group in state.state_tensors().items() for key, value in group.items()
    }


def _train(name: str, device: Device, pieces: int = 1) -> dict[str, Any]:
    """Weights, optimizer, averages and metrics after a few steps, some of them smaller than the number of ranks."""
    state, batches = _state(name, device, pieces)
    several = [evaluate(state.eval_model, state.task, batches[:3], device)]  # before the first step, too
    for batch in batches:
        state.train_step(batch)
    state.check_finite()
    several += [evaluate(state.eval_model, state.task, batches[:count], device) for count in (1, 3, 4)]
    held = sum(own_rows(p).numel() for p in state.model.parameters())
    return {"tensors": _whole(state), "metrics": state.pop_train_metrics(), "several": several, "held": held}


def _save_and_load(folder: Path) -> dict[str, Any]:
    """Save in parts, be refused once on rank 1, and go on from what was saved in parts or whole."""
    device = Device("cpu", threads=1, shard="full")
    state, batches = _state("gpt", device)
    world = device.world
    saver = AsyncCheckpointer(folder / "parts", {}, keep=5, parts=PartialSaves(world))
    for batch in batches[:3]:
        state.train_step(batch)
        saver.save(state)
    saver.completed(wait=True)
    whole = {file: {name: _full(t) for name, t in group.items()} for file, group in state.state_tensors().items()}
    if world.rank == 0:
        checkpoint.commit(folder / "whole", state.step, whole, state.state_scalars(), keep=2)
    state.train_step(batches[3])
    refused = ""
    with pytest.MonkeyPatch.context() as patch:
        if world.rank == 1:
            patch.setattr(tensor_files, "save_file", _no_space)
        saver.save(state)
        try:
            saver.completed(wait=True)
        except OSError as error:
            refused = str(error)
    found: dict[str, Any] = {"refused": refused, "tensors": whole, "expected": _whole(state)}
    for kind in ("parts", "whole"):
        again, _ = _state("gpt", device)
        read = checkpoint.load(checkpoint_path(folder / kind, 3), whole=False, by_hash=False)
        again.load_state(read.tensors, read.state)
        again.train_step(batches[3])
        found[kind] = _whole(again)
    saver.save(state)  # the ranks still agree on what comes next
    saver.completed(wait=True)
    return found


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def on_rank(
    place: Place, folder: Path, mode: Mapping[str, Any] = {"shard": "full"}, names: Sequence[str] = tuple(CASES)
) -> dict[str, Any]:
    found: dict[str, Any] = {name: _train(name, Device("cpu", threads=1, **mode)) for name in names}
    if place.size == 2:
        found["saves"] = _save_and_load(folder)
        found["unseen"] = _unseen(folder, place.rank)
    return found


def _unseen(folder: Path, rank: int) -> str:
    """What is said where rank 1 looks into another directory."""
    mark = folder / f"mark-{rank}"
    if rank == 0:
        mark.touch()
    try:
        _check_seen(current_world(), mark)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def two(two_ranks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rank["test_sharding"] | {"folder": rank["folder"]} for rank in two_ranks]


def _differences(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, float]:
    assert a.keys() == b.keys()
    return {name: float((a[name] - b[name]).abs().max()) for name in a if not torch.equal(a[name], b[name])}


def _check_bits(name: str, ranks: list[dict[str, Any]]) -> None:
    expected = _train(name, Device("cpu", threads=1), pieces=len(ranks))
    for rank in ranks:
        assert _differences(rank[name]["tensors"], expected["tensors"]) == {}
        assert rank[name]["metrics"] == expected["metrics"]
        assert rank[name]["several"] == expected["several"]
        assert rank[name]["held"] < 0.6 * expected["held"]


@pytest.mark.parametrize("name", ["gpt", "muon", "lora", "sgd"])
def test_two_ranks_have_the_bits_of_two_micro_batches(name: str, two: list[dict[str, Any]]) -> None:
    _check_bits(name, two)


@pytest.mark.parametrize(("name", "pieces"), [("clipped", 2), ("norms", 1)])
def test_what_is_clipped_or_normed_is_close(name: str, pieces: int, two: list[dict[str, Any]]) -> None:
    expected = _train(name, Device("cpu", threads=1), pieces=pieces)["tensors"]
    for key, value in expected.items():
        torch.testing.assert_close(two[0][name]["tensors"][key], value, rtol=1e-4, atol=1e-5)
    if name == "clipped":
        assert _distance(two[0][name]["tensors"], expected) < 1e-5


def _distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Relative to the norm of all weights."""
    flat = [torch.cat([each[name].flatten() for name in a if name.startswith("model.")]) for each in (a, b)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def test_a_run_goes_on_from_parts_and_from_a_whole_checkpoint(two: list[dict[str, Any]]) -> None:
    for rank in two:
        for kind in ("parts", "whole"):
            assert _differences(rank["saves"][kind], rank["saves"]["expected"]) == {}


def test_parts_are_read_whole_by_one_process(two: list[dict[str, Any]]) -> None:
    path = checkpoint_path(two[0]["folder"] / "parts", 3)
    assert {file.name for file in path.iterdir()} == {
        *(
            f"{name}.{part}-of-00002.safetensors"
            for name in ("model", "ema", "optimizer")
            for part in ("00001", "00002")
        ),
        *("state.json", "MANIFEST.json"),
    }
    found = checkpoint.load(path)
    for group, tensors in two[0]["saves"]["tensors"].items():
        assert _differences(dict(found.tensors[group]), tensors) == {}
    rows = checkpoint.load(path, whole=False).tensors["model"]
    assert isinstance(rows, tensor_files.TensorFiles)
    whole = rows["embed.weight"]
    assert rows.shape("embed.weight") == whole.shape
    assert all(rows.rows("embed.weight", a, b).equal(whole[a:b]) for a in range(18) for b in range(a, 18))


def test_a_disk_that_is_full_for_one_rank_is_told_to_all(two: list[dict[str, Any]]) -> None:
    assert all("No space left" in rank["saves"]["refused"] for rank in two)
    assert checkpoint_path(two[0]["folder"] / "parts", 4).is_dir()  # of the save after it
    assert list((two[0]["folder"] / "parts").glob(".tmp*")) == []


def test_every_rank_must_see_the_directory(two: list[dict[str, Any]]) -> None:
    assert [rank["unseen"].startswith("output_dir: ") for rank in two] == [True, True]


@pytest.mark.parametrize("lacking", ["model.00002-of-00002.safetensors", "model.00001-of-00002.safetensors"])
def test_a_manifest_that_lacks_a_part_is_not_believed(lacking: str, two: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "step-00000003"
    shutil.copytree(checkpoint_path(two[0]["folder"] / "parts", 3), path)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    del manifest["files"][lacking]
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match="not a whole checkpoint"):
        checkpoint.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 4])
def test_more_ranks_have_the_bits_of_as_many_micro_batches(count: int, tmp_path: Path) -> None:
    names = ("gpt", "muon", "sgd")  # of which every rank has some rows of each weight, so that it has all states
    ranks = on_ranks(count, tmp_path, partial(on_rank, names=names))
    for name in names:
        _check_bits(name, ranks)


@pytest.mark.slow
def test_groups_of_ranks_that_each_hold_the_model_are_close(tmp_path: Path) -> None:
    names = ("gpt", "clipped", "muon")
    ranks = on_ranks(4, tmp_path, partial(on_rank, mode={"shard": "hybrid", "shard_ranks": 2}, names=names))
    for name in names:
        expected = _train(name, Device("cpu", threads=1), pieces=4)
        for rank in ranks:
            assert _distance(rank[name]["tensors"], expected["tensors"]) < 1e-5
            assert _differences(rank[name]["tensors"], ranks[0][name]["tensors"]) == {}
            assert rank[name]["held"] < 0.6 * expected["held"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("device.shard=full",), "device.shard: full divides the model among ranks; set device.count"),
        (("device.count=4", "device.shard=hybrid"), "device.shard_ranks: hybrid takes a part of 4 ranks"),
        (("device.count=4", "device.shard=hybrid", "device.shard_ranks=3"), "device.shard_ranks: hybrid takes a part"),
        (("device.count=2", "device.shard_ranks=2"), "device.shard_ranks: is for device.shard=hybrid, got auto"),
        (("device.count=2", "device.shard=full", "device.compile=true"), "device.compile: a model divided among ranks"),
        (("device.count=2", "device.shard=full", "device.channels_last=true"), "device.channels_last: weights divided"),
        (("device.count=2", "device.shard=full", "model=resnet18", "optim=muon_sgd"), "optim: Muon as it is used here"),
        (("device.count=2", "device.shard=full", "pieces=4"), "pieces: a divided model adds up gradients"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_a_line(
    words: tuple[str, ...], said: str, cli: Callable[..., Answer]
) -> None:
    answer = cli("device=cpu", *words, "dry_run=true")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert answer.err.startswith(f"error: {said}")


class _Own(torch.optim.Optimizer):
    updates_parts = True


@pytest.mark.parametrize(
    ("optimizer", "is_refused"),
    [
        (lambda weights: _Own(weights, {}), False),
        (lambda weights: torch.optim.AdamW(weights), False),
        (lambda weights: Muon(weights), False),
        (lambda weights: Muon(weights, unit=True), True),
        (lambda weights: torch.optim.Adafactor(weights), True),
    ],
)
def test_an_optimizer_says_itself_whether_it_can_update_a_part(optimizer: Any, is_refused: bool) -> None:
    device = SimpleNamespace(parts=2, shard="full", sharding="two parts")
    optimizers = [optimizer([nn.Parameter(torch.ones(2, 2))])]
    with pytest.raises(ConfigError, match="may need whole weights") if is_refused else contextlib.nullcontext():
        assert describe_division(device, optimizers, None) == ["device.shard=full: two parts"]  # type: ignore[arg-type]


def test_the_plan_says_whether_the_model_is_divided_and_why(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("device=cpu", "device.count=2", "device.threads=1", "dry_run=true")
    assert "; each holds the whole model: " in cli(*words).out
    assert "; the model is divided among 2 of them\n" in cli(*words, "device.shard=full").out
    monkeypatch.setattr("bigmodel.training.placement._memory", lambda device: 1000)
    assert " of weights, gradients and optimizer states do not fit the 1 kB of a rank" in cli(*words).out


@pytest.mark.slow
def test_a_run_of_a_divided_model_is_one_run(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    words = (*SHORT, "limit_batches=2", "epochs=1")
    whole = cli(*words, "accumulate=2")
    assert whole.code == 0, whole.err
    run = trained(tmp_path / "ranks", *words, "device.count=2", "device.shard=full")
    mine, theirs = (
        [{k: v for k, v in line.items() if k != "grad_norm"} for line in records(r)] for r in (run, whole.run)
    )
    assert mine == theirs
    assert _differences(*(dict(checkpoint.load_newest(r / "checkpoints")[0].weights) for r in (run, whole.run))) == {}  # type: ignore[union-attr]
    evaluated = cli(f"run={run}", "device=cpu", verb="evaluate")
    assert evaluated.code == 0, evaluated.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [
        (("device.count=2", "device.shard=full"), ("device.count=1", "device.shard=none")),
        (("device.count=1",), ("device.count=2", "device.shard=full")),
        (("device.count=2", "device.shard=none"), ("device.count=3", "device.shard=full")),
        (("device.count=3", "device.shard=full"), ("device.count=4", "device.shard=hybrid", "device.shard_ranks=2")),
    ],
)
def test_a_run_goes_on_with_other_ranks(first: tuple[str, ...], then: tuple[str, ...], tmp_path: Path) -> None:
    words = (*SHORT, "batch_size=500", "optim=adamw", "schedule=constant", "ema=0.9")
    whole = trained(tmp_path / "whole", *words, "epochs=4")
    run = trained(tmp_path / "parts", *words, "epochs=2", *first)
    trained(tmp_path / "parts", f"resume={run}", "epochs=4", *then)
    said = output_of(tmp_path / "parts")
    assert "later steps may differ from those of an unbroken run in the last bits" in said
    mine, theirs = ([line for line in records(one) if line["split"] == "train"] for one in (run, whole))
    assert [line["step"] for line in mine] == [*range(1, 13)]
    assert [line["loss"] for line in mine] == pytest.approx([line["loss"] for line in theirs], rel=1e-4)
