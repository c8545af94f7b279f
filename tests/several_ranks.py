"""Ranks as tests start, watch and end them: command lines on several, and functions that each of them calls."""

from __future__ import annotations

import fcntl
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.interfaces import Batch
from bigmodel.runtime.distributed import join_ranks
from bigmodel.runtime.launch import Place
from bigmodel.runtime.lazy_compiler import avoid_dynamo_import
from conftest import only_run
from forks import ForkServerProcess, _server, finished, launch, until

SHORT = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[16]", "log_every=1steps", "listeners=[]")
LONG = 300  # seconds that a run may take beside others
CLASSES = 10

OnRank = Callable[[Place, Path], dict[str, Any]]


def start(cwd: Path, *words: str, **options: Any) -> ForkServerProcess:
    cwd.mkdir(exist_ok=True)
    (cwd / "said").unlink(missing_ok=True)
    return launch(*words, cwd=cwd, output=cwd / "said", **options)


def output_of(cwd: Path) -> str:
    return (cwd / "said").read_text(encoding="utf-8")


def trained(cwd: Path, *words: str, **options: Any) -> Path:
    assert finished(start(cwd, *words, **options), LONG) == 0, output_of(cwd)
    return only_run(cwd)


def rank_processes(process: ForkServerProcess) -> list[int]:
    """Process ids of the ranks, rank 0 first; none once the run has ended."""
    try:
        return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def running(cwd: Path, *words: str, **options: Any) -> tuple[ForkServerProcess, list[int]]:
    """A run of two ranks that has made its first steps, and would make many."""
    process = start(cwd, *SHORT, "epochs=100000", "evaluate_every=9999epoch", "device.count=2", *words, **options)
    assert until(
        lambda: any(file.stat().st_size > 200 for file in cwd.glob("outputs/*/*/metrics.jsonl")), process, LONG
    )
    return process, rank_processes(process)


def pictures(count: int) -> Batch:
    return Batch(torch.randn(count, 3, 4, 4), torch.randint(CLASSES, (count,)))


def texts(count: int) -> Batch:
    """Token windows of which each has another number of targets: pieces differ in what their loss is a mean of."""
    tokens = torch.randint(17, (count, 9))
    targets = tokens[:, 1:].clone()
    for row in range(count):
        targets[row, 8 - row % 8 :] = -1
    return Batch(tokens[:, :-1], targets)


def on_ranks(count: int, folder: Path, run: OnRank) -> list[dict[str, Any]]:
    """What `run` returns on each of `count` ranks; it gets an empty folder that they share."""
    places = [Place(rank, count, rank, str(folder / "store"), True) for rank in range(count)]
    processes = [_server.Process(target=_on_rank, args=(place, folder, run), daemon=False) for place in places]
    for process in processes:
        process.start()
    try:
        assert [finished(process, LONG) for process in processes] == [0] * count
    finally:
        for process in processes:
            process.kill()  # one that is left would be waited for when this process ends
    return _found(count, folder)


def _on_rank(place: Place, folder: Path, run: OnRank) -> None:
    torch.set_num_threads(1)
    avoid_dynamo_import()
    with join_ranks(place, use_gpus=False):
        torch.save(run(place, folder), folder / f"{place.rank}.pt")
    os._exit(0)


def _found(count: int, folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{rank}.pt") | {"folder": folder} for rank in range(count)]


def _for_all_tests(place: Place, folder: Path) -> dict[str, Any]:
    return {name: importlib.import_module(name).on_rank(place, folder) for name in ("test_ranks", "test_sharding")}


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks have found, by test file, forked once for all tests of all workers."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "two-ranks"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _found(2, folder) if (folder / "1.pt").exists() else on_ranks(2, folder, _for_all_tests)


@pytest.fixture
def one_thread() -> Iterator[None]:
    avoid_dynamo_import()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
