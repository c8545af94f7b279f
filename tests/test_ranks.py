"""Several ranks are one run: the numbers of one process that takes the batch in as many pieces, and one end for all."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.errors import ConfigError, DataError
from bigmodel.interfaces import Batch
from bigmodel.models.gpt import GPT
from bigmodel.models.mlp import MLP
from bigmodel.optim.adam import adamw
from bigmodel.optim.sgd import sgd
from bigmodel.runtime.batch_norm import share_batch_norms
from bigmodel.runtime.device import Device
from bigmodel.runtime.distributed import current_world, join_ranks
from bigmodel.runtime.gpus import Gpu, acquire_idle
from bigmodel.runtime.launch import Place, meeting_point, place_of_this_process
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.language_modelling import LanguageModelling
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training.evaluation import evaluate
from bigmodel.training.state import TrainState
from conftest import Answer, contents, fingerprint, only_run, records
from forks import _server, finished, until
from several_ranks import SHORT, is_alive, output_of, running, start, trained

CLASSES = 10


def _pictures(count: int) -> Batch:
    return Batch(torch.randn(count, 3, 4, 4), torch.randint(CLASSES, (count,)))


def _texts(count: int) -> Batch:
    """Token windows of which each has another number of targets: pieces differ in what their loss is a mean of."""
    tokens = torch.randint(17, (count, 9))
    targets = tokens[:, 1:].clone()
    for row in range(count):
        targets[row, 8 - row % 8 :] = -1
    return Batch(tokens[:, :-1], targets)


def _mlp() -> tuple[TrainState, list[Batch]]:
    model = MLP([3, 4, 4], CLASSES, hidden=[8])
    return _state(model, sgd(model, lr=0.05)), [_pictures(count) for count in (8, 8, 5, 8, 1)]


def _gpt() -> tuple[TrainState, list[Batch]]:
    model = GPT(17, 8, layers=1, heads=2, width=12, dropout=0.1)
    return _state(model, adamw(model, lr=0.01), LanguageModelling()), [_texts(count) for count in (6, 7, 2, 1)]


def _norms() -> tuple[TrainState, list[Batch]]:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, CLASSES))
    share_batch_norms(model)
    return _state(model, sgd(model, lr=0.05)), [_pictures(count) for count in (7, 8, 1)]


def _norms_of_pieces() -> tuple[TrainState, list[Batch]]:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, CLASSES))
    return _state(model, sgd(model, lr=0.05), pieces=PIECES), [_pictures(count) for count in (7, 8, 1)]


CASES = {"mlp": _mlp, "gpt": _gpt, "norms": _norms, "norms of pieces": _norms_of_pieces}
PIECES = 4  # of a batch; each case has batches of fewer samples
PIECEWISE = ("mlp", "gpt", "norms of pieces")


def _state(
    model: nn.Module, optimizer: torch.optim.Optimizer, task: Any = None, pieces: int | None = None
) -> TrainState:
    return TrainState(
        model=model,
        task=task or Classification(CrossEntropy(), CLASSES),
        optimizers=[optimizer],
        schedule=lambda progress: 1.0,
        device=Device("cpu", threads=1),
        seed=0,
        steps=8,
        pieces=pieces,
        clip_norm=0.5,
        ema=0.9,
    )


def _train(name: str, accumulate: int = 1, pieces: int | None = None) -> dict[str, Any]:
    """Weights, optimizer, averages and metrics after a few steps, the last of them smaller than the number of ranks."""
    torch.manual_seed(0)
    state, batches = CASES[name]()
    state.accumulate, state.pieces = accumulate, state.pieces or pieces
    for batch in batches:
        state.train_step(batch)
    tensors = {
        f"{file}.{key}": value.clone() for file, group in state.state_tensors().items() for key, value in group.items()
    }
    several = [evaluate(state.eval_model, state.task, batches[:count], state.device) for count in (1, 3)]
    return {"tensors": tensors, "metrics": state.pop_train_metrics(), "several": several}


def _in_rank(place: Place, output: Path) -> None:
    torch.set_num_threads(1)
    with join_ranks(place, use_gpus=False) as world:
        found = {name: _train(name) for name in CASES if name != "norms of pieces"}
        if PIECES % place.size == 0:
            found["pieces"] = {name: _train(name, pieces=PIECES) for name in PIECEWISE}
        found["text"] = world.broadcast_text(str(world.rank))
        found["sent"] = (torch.arange(4.0) + world.rank).view(2, 2).T  # not contiguous
        world.broadcast([found["sent"]])
        torch.set_num_threads(5)
        found["threads"] = [Device("cpu").threads, Device("cpu", threads=3).threads]
        found["any"] = [world.any(False), world.any(world.rank == 1)]
        try:
            evaluate(nn.Identity(), Classification(CrossEntropy(), CLASSES), [], Device("cpu"))
        except DataError:
            found["empty"] = True
        torch.save(found, output / f"{place.rank}.pt")
    os._exit(0)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks have found, forked once for all tests."""
    return _ranks(2, tmp_path_factory.mktemp("two"))


def _ranks(count: int, folder: Path) -> list[dict[str, Any]]:
    places = [Place(rank, count, rank, str(folder / "store"), True) for rank in range(count)]
    processes = [_server.Process(target=_in_rank, args=(place, folder), daemon=False) for place in places]
    for process in processes:
        process.start()
    assert [finished(process) for process in processes] == [0] * count
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _hashed(found: dict[str, Any]) -> dict[str, Any]:
    """The same with a SHA-256 of all tensors, which also tells 0.0 from -0.0."""
    digest = hashlib.sha256()
    for name, tensor in sorted(found["tensors"].items()):
        digest.update(name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {**found, "tensors": digest.hexdigest()}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["mlp", "gpt"])
def test_two_ranks_have_the_bits_of_two_micro_batches(name: str, two: list[dict[str, Any]]) -> None:
    expected = _train(name, accumulate=2)
    for rank in two:
        assert _same(rank[name]["tensors"], expected["tensors"])
        assert rank[name]["metrics"] == expected["metrics"]
        assert rank[name]["several"] == expected["several"]  # of one batch, so that a rank has none, and of three


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", PIECEWISE)
def test_as_many_pieces_have_the_same_bits_on_any_number_of_ranks(name: str, two: list[dict[str, Any]]) -> None:
    expected = _hashed(_train(name, pieces=PIECES))
    assert [_hashed(rank["pieces"][name]) for rank in two] == [expected] * 2
    if name == "gpt":
        assert expected["tensors"] != _hashed(_train(name, accumulate=PIECES))["tensors"]  # which adds in a row


@pytest.mark.usefixtures("one_thread")
def test_each_piece_draws_its_own_numbers() -> None:
    draws: list[float] = []

    class Drawing(Classification):
        def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            draws.append(float(torch.rand(())))
            return super().loss(model, batch)

    for accumulate, pieces in ((4, None), (1, 4), (2, 2)):
        state, batches = _mlp()
        state = _state(state.model, state.optimizers[0], Drawing(CrossEntropy(), CLASSES))
        state.accumulate, state.pieces = accumulate, pieces
        state.train_step(batches[0])
    assert draws[:4] == draws[4:8] == draws[8:]
    assert len({*draws}) == 4


def test_pieces_keep_a_gradient_for_each_level_of_their_tree() -> None:
    counts: list[int] = []

    class Counting(Classification):
        def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            counts.append(sum(type(one) is Tensor and one.shape == (CLASSES, 48) for one in gc.get_objects()))
            return super().loss(model, batch)

    model = MLP([3, 4, 4], CLASSES, hidden=[])
    state = _state(model, sgd(model, lr=0.1), Counting(CrossEntropy(), CLASSES))
    state.pieces = 8
    state.train_step(_pictures(8))
    assert [count - counts[0] for count in counts] == [0, 1, 1, 2, 1, 2, 2, 3]


@pytest.mark.usefixtures("one_thread")
def test_batch_norms_see_the_whole_batch(two: list[dict[str, Any]]) -> None:
    expected = _train("norms")
    for name, value in expected["tensors"].items():
        torch.testing.assert_close(two[0]["norms"]["tensors"][name], value, rtol=1e-4, atol=1e-5)
    assert _same(two[0]["norms"]["tensors"], two[1]["norms"]["tensors"])


def test_ranks_agree(two: list[dict[str, Any]]) -> None:
    """On a flag, on the tensors and the text of rank 0, and on a split that is empty."""
    assert [(rank["any"], rank["empty"], rank["text"]) for rank in two] == [([False, True], True, "0")] * 2
    assert [rank["sent"].tolist() for rank in two] == [[[0.0, 2.0], [1.0, 3.0]]] * 2


def test_ranks_of_one_machine_share_its_cores(two: list[dict[str, Any]]) -> None:
    assert [rank["threads"] for rank in two] == [[2, 3]] * 2


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("count", [3, 4])
def test_more_ranks_have_the_bits_of_as_many_micro_batches(count: int, tmp_path: Path) -> None:
    ranks = _ranks(count, tmp_path)
    for name in ("mlp", "gpt"):
        expected = _train(name, accumulate=count)
        assert all(_same(rank[name]["tensors"], expected["tensors"]) for rank in ranks)
        assert all(rank[name]["several"] == expected["several"] for rank in ranks)
    for name in PIECEWISE if count == PIECES else ():
        assert [_hashed(rank["pieces"][name]) for rank in ranks] == [_hashed(_train(name, pieces=PIECES))] * 4


def test_a_process_knows_the_place_that_others_gave_it() -> None:
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert place_of_this_process(torchrun) == Place(3, 4, 1)
    assert meeting_point(torchrun) == {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
    step = {
        "SLURM_PROCID": "5",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "gpu[03-07,12]",
    }
    assert place_of_this_process(step) == Place(5, 8, 1)
    assert meeting_point(step | {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2"}) == {
        "MASTER_ADDR": "gpu03",
        "MASTER_PORT": "20702",
    }
    assert meeting_point({"SLURM_STEP_NODELIST": "n-1,n-2"})["MASTER_ADDR"] == "n-1"
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}
    alone = {"RANK": "0", "WORLD_SIZE": "1"}
    assert [place_of_this_process(found) for found in ({}, batch_script, alone)] == [None] * 3
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        place_of_this_process({"RANK": "1", "WORLD_SIZE": "2"})
    assert current_world().size == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("batch_size=2", "device.count=3"), "device.count: 3 ranks need batch_size >= 3, got 2"),
        (("batch_size=5", "accumulate=2", "device.count=3"), "device.count: 3 ranks of 2 micro-batches need"),
        (("device.precision=auto",), "device.precision: auto measures"),
        (("model=resnet18", "accumulate=2"), "accumulate: batch norms over 2 ranks need accumulate=1"),
        (("pieces=8", "device.count=3"), "device.count: 3 ranks cannot take as many of pieces=8 each; use"),
        (("pieces=8", "batch_size=7"), "pieces: 8 pieces need batch_size >= 8, got 7"),
        (("pieces=6",), "pieces: must be one of 2, 4, 8"),
        (("device.count=0",), "device.count: must be a number at least 1 or one of auto"),
    ],
)
def test_what_ranks_do_not_go_with_is_refused_in_a_line(
    words: tuple[str, ...], said: str, cli: Callable[..., Answer]
) -> None:
    answer = cli("device=cpu", "device.count=2", *words, "dry_run=true")
    assert answer.code == 2
    assert answer.err.startswith(f"error: {said}")
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("words", [("batch_size=auto",), ("profile=true",), ("optim.lr=auto",)])
def test_what_looks_at_one_process_is_refused_before_ranks_start(
    words: tuple[str, ...], cli: Callable[..., Answer]
) -> None:
    answer = cli("device=cpu", "device.count=2", *words)
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert not (answer.cwd / "outputs").exists()


def test_the_device_that_is_chosen_by_rule_has_ranks(cli: Callable[..., Answer]) -> None:
    answer = cli("device=auto", "device.count=2", "model=mlp", "dry_run=true")
    assert answer.code == 0, answer.err


def test_the_plan_says_how_many_ranks(cli: Callable[..., Answer]) -> None:
    answer = cli("device=cpu", "device.count=2", "device.threads=1", "model=resnet18", "dry_run=true")
    assert "2 ranks on cpu (gloo; each" in answer.out
    assert "mean and variance over the pieces of all ranks" in answer.out


def test_each_rank_needs_a_gpu_of_its_own(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BIGMODEL_GPU_LOCKS", str(tmp_path / "locks"))
    gpus = [Gpu("GPU-a", 3.0), Gpu("GPU-b", 40_000.0), Gpu("GPU-c", 3.0, busy=90.0), Gpu("GPU-d", 500.0)]
    monkeypatch.setattr("bigmodel.commands.ranks.visible_gpus", lambda: gpus)
    answer = cli("device=cuda", "device.count=5")
    assert answer.code == 2
    assert answer.err.startswith("error: device.count: 5 ranks need a GPU each, and there are 4; ")
    assert [gpu.name for gpu in acquire_idle(gpus)] == ["GPU-a", "GPU-d"]
    assert acquire_idle(gpus) == []  # this process holds them


@pytest.mark.parametrize("words", [("evaluate",), ("predict", "input=x")], ids=lambda words: words[0])
def test_only_training_has_ranks(words: tuple[str, ...], cli: Callable[..., Answer]) -> None:
    verb, *given = words
    answer = cli("run=x", "device=cpu", "device.count=2", *given, verb=verb)
    assert (answer.code, answer.err) == (
        2,
        "error: device.count: this command computes in one process, got 2; leave it 1\n",
    )


def test_python_trains_in_one_process() -> None:
    import bigmodel

    with pytest.raises(ConfigError, match=r"device\.count: bigmodel\.train computes in this process"):
        bigmodel.train(["device=cpu", "device.count=2"])


def test_a_run_of_two_ranks_is_one_run(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    words = (*SHORT, "limit_batches=2", "epochs=1", "clip_norm=0.5")
    whole = cli(*words, "accumulate=2")
    assert whole.code == 0, whole.err
    run = trained(tmp_path / "ranks", *words, "device.count=2")
    assert records(run) == records(whole.run)
    assert fingerprint(run) == fingerprint(whole.run)
    mine, theirs = contents(run), contents(whole.run)
    assert mine.keys() == theirs.keys()
    assert mine["summary.json"] == theirs["summary.json"]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (2, 3)])
def test_a_run_goes_on_with_other_ranks(first: int, then: int, tmp_path: Path) -> None:
    words = (*SHORT, "batch_size=500", "optim=adamw", "schedule=constant")  # 1,294 samples: the last batch is smaller
    whole = trained(tmp_path / "whole", *words, "epochs=4")
    run = trained(tmp_path / "parts", *words, "epochs=2", f"device.count={first}")
    trained(tmp_path / "parts", f"resume={run}", "epochs=4", f"device.count={then}")
    assert f"device.count was {first}, is now {then}" in output_of(tmp_path / "parts")
    mine, theirs = ([line for line in records(one) if line["split"] == "train"] for one in (run, whole))
    assert [line["step"] for line in mine] == [*range(1, 13)]
    assert [line["loss"] for line in mine] == pytest.approx([line["loss"] for line in theirs], rel=1e-4)


@pytest.mark.slow
def test_as_many_pieces_have_one_hash_on_any_number_of_ranks(tmp_path: Path) -> None:
    """Also where the number changes at a restart; dropout, clipping, and a last batch of fewer samples than pieces."""
    words = (*SHORT[:1], *SHORT[2:], "model.dropout=0.1", "optim=adamw", "schedule=constant", "clip_norm=0.1")
    words = (*words, "ema=0.9", "pieces=8", "batch_size=645")  # of 1,294 samples
    runs = {
        count: trained(tmp_path / str(count), *words, "epochs=4", f"device.count={count}") for count in (1, 2, 4, 8)
    }
    moved = trained(tmp_path / "moved", *words, "epochs=2", "device.count=2")
    for epochs, count in ((3, 8), (4, 1)):
        trained(tmp_path / "moved", f"resume={moved}", f"epochs={epochs}", f"device.count={count}")
        assert "last bits" not in output_of(tmp_path / "moved")
    assert [fingerprint(run) for run in runs.values()] == [fingerprint(moved)] * 4
    whole, *others = map(records, (*runs.values(), moved))
    assert others == [whole] * 4


def _note_samples() -> None:
    """Have rank 0 note which samples it takes at which step, by their bytes."""
    train_step, notes = TrainState.train_step, Path("samples").absolute()

    def noting(self: TrainState, batch: Batch) -> None:
        if self.device.world.rank == 0:
            rows = [zlib.crc32(row.numpy().tobytes()) for row in batch.inputs]
            with notes.open("a") as file:
                file.write(json.dumps([self.step, rows]) + "\n")
        train_step(self, batch)

    TrainState.train_step = noting  # type: ignore[method-assign]


@pytest.mark.slow
def test_other_ranks_take_the_same_samples_in_the_same_order(tmp_path: Path) -> None:
    words = (*SHORT, "batch_size=500", "dataset.augment.flip=true")
    trained(tmp_path / "whole", *words, "epochs=4", before=_note_samples)
    run = trained(tmp_path / "parts", *words, "epochs=2", "device.count=2", before=_note_samples)
    trained(tmp_path / "parts", f"resume={run}", "epochs=3", "device.count=3", before=_note_samples)
    trained(tmp_path / "parts", f"resume={run}", "epochs=4", "device.count=1", before=_note_samples)
    whole, parts = ((tmp_path / name / "samples").read_text().splitlines() for name in ("whole", "parts"))
    assert [json.loads(line)[0] for line in parts] == [*range(12)]
    assert parts == whole


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["parent", 0, 1, "all"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_anyone_stops_all_at_one_step(whom: str | int, number: int, tmp_path: Path) -> None:
    process, ranks = running(tmp_path)
    everyone = {"parent": [process.pid], "all": [*ranks, process.pid]}
    for pid in everyone[whom] if isinstance(whom, str) else [ranks[whom]]:
        os.kill(pid, number)
    assert finished(process) == 75, output_of(tmp_path)
    assert [pid for pid in ranks if is_alive(pid)] == []
    run = only_run(tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["state"] == "interrupted"
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == [f"step-{summary['step']:08d}"]
    assert output_of(tmp_path).count("stopped by") == 1
    assert "resume with: bigmodel-train resume=" in output_of(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_within_seconds(rank: int, tmp_path: Path) -> None:
    process, ranks = running(tmp_path, "save_every=1steps", "device.restarts=0")
    assert until(lambda: any(only_run(tmp_path).glob("checkpoints/step-*/MANIFEST.json")), process)
    os.kill(ranks[rank], signal.SIGKILL)
    began = time.monotonic()
    assert finished(process, 20) == 6
    assert time.monotonic() - began < 10
    assert [pid for pid in ranks if is_alive(pid)] == []
    (line,) = output_of(tmp_path).splitlines()
    run = only_run(tmp_path)
    assert line.startswith(
        f"error: rank {rank} was killed by SIGKILL (often: out of memory), and the others have stopped"
    )
    assert line.endswith(f"run: bigmodel-train resume={run.relative_to(tmp_path)}")
    step = int(max((run / "checkpoints").glob("step-*")).name[5:])
    resumed = start(tmp_path, f"resume={run}", "save_every=9999epoch")
    assert until(lambda: any(line["step"] > step + 2 for line in records(run)), resumed)
    os.kill(resumed.pid, signal.SIGTERM)
    assert finished(resumed) == 75
    steps = [line["step"] for line in records(run)]
    assert steps == [*range(1, len(steps) + 1)]


@pytest.mark.slow
def test_ranks_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    process, ranks = running(tmp_path)
    process.kill()
    process.join()
    deadline = time.monotonic() + 10
    while any(map(is_alive, ranks)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _fail_on_rank(kind: type[Exception], rank: int) -> None:
    """Have the third step fail on one rank."""
    train_step = TrainState.train_step

    def failing(self: TrainState, batch: Batch) -> None:
        if self.step == 2 and self.device.world.rank == rank:
            raise kind(f"bad sample on rank {rank}")
        train_step(self, batch)

    TrainState.train_step = failing  # type: ignore[method-assign]


def _bad_data_on_rank_1() -> None:
    _fail_on_rank(DataError, 1)


def _bad_data_on_rank_0() -> None:
    _fail_on_rank(DataError, 0)


def _no_memory_on_rank_1() -> None:
    _fail_on_rank(MemoryError, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "words", "code", "said"),
    [
        (_bad_data_on_rank_1, (), 3, "error: bad sample on rank 1"),
        (_bad_data_on_rank_0, (), 3, "error: bad sample on rank 0"),
        (_no_memory_on_rank_1, (), 6, "error: out of memory at step 2; "),
        (None, ("optim.lr=1e30",), 4, "error: diverged at step "),
        (None, ("dataset.val_fraction=0.999",), 2, "error: batch_size: 64 exceeds"),
    ],
    ids=["data on rank 1", "data on rank 0", "memory", "diverged", "config"],
)
def test_a_failure_is_told_once(
    before: Callable[[], None] | None, words: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    process = start(tmp_path, *SHORT, "batch_size=64", "epochs=1", "device.count=2", *words, before=before)
    assert finished(process, 30) == code
    (line,) = output_of(tmp_path).splitlines()
    assert line.startswith(said)
    for summary in tmp_path.glob("outputs/*/*/summary.json"):
        assert said.removeprefix("error: ") in json.loads(summary.read_text(encoding="utf-8"))["error"]


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "bigmodel", "train", *words]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_started_by_others_a_process_joins(launcher: str, tmp_path: Path) -> None:
    words = (*SHORT, "epochs=1", "limit_batches=3")
    expected = trained(tmp_path / "own", *words, "device.count=2")
    cwd = tmp_path / "joined"
    cwd.mkdir()
    if launcher == "torchrun":
        run = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--master-port=29583",
            "-m",
            "bigmodel",
        ]
        done = subprocess.run([*run, "train", *words], cwd=cwd, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    else:
        step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "83"}
        tasks = [
            subprocess.Popen(_command(*words), cwd=cwd, env={**os.environ, **step, "SLURM_PROCID": str(rank)})
            for rank in range(2)
        ]
        assert [task.wait(200) for task in tasks] == [0, 0]
    assert fingerprint(only_run(cwd)) == fingerprint(expected)
    assert records(only_run(cwd)) == records(expected)
