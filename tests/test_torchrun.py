"""Ranks that torchrun starts again, with as many or other machines, go on with the run that they had begun."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bigmodel.runtime.launch import Place, place_of_this_process
from bigmodel.runtime.meeting import agree, final_code, note_final
from bigmodel.runtime.torchrun import TorchrunNote
from conftest import fingerprint, only_run, records
from several_ranks import SHORT, is_alive, trained

WORDS = (*SHORT, "limit_batches=6", "epochs=2", "save_every=3steps")
ENDLESS = (*SHORT, "epochs=100000", "evaluate_every=9999epoch", "save_every=3steps")
SECONDS = 300


class Agent:
    """A torchrun: `pid`, its workers, and what they have said."""

    def __init__(
        self, cwd: Path, name: str, flags: tuple[str, ...], words: tuple[str, ...], **environment: str
    ) -> None:
        run = [sys.executable, "-m", "torch.distributed.run", *flags, "-m", "bigmodel", "train", *words]
        self._said = cwd / f"{name}.txt"
        with self._said.open("w") as sink:
            self.process = subprocess.Popen(
                run, cwd=cwd, stdout=sink, stderr=sink, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
            )

    @property
    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def said(self) -> str:
        return self._said.read_text()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    started: list[Agent] = []

    def start(flags: Sequence[str], words: Sequence[str], **environment: str) -> Agent:
        started.append(Agent(tmp_path, f"agent-{len(started)}", flags, words, **environment))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def _comes(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.05)


def _step(cwd: Path) -> int:
    return max((int(path.name[5:]) for path in cwd.glob("outputs/*/*/checkpoints/step-*")), default=0)


def _log(cwd: Path) -> str:
    return "".join(path.read_text() for path in cwd.glob("outputs/*/*/train.log"))


class _Store(dict[str, bytes]):
    """A store in one process, which waits for nothing."""

    def set(self, key: str, value: str) -> None:
        self[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)

    def get(self, key: str, default: object = None) -> bytes:  # type: ignore[override]
        return self[key]

    def add(self, key: str, value: int) -> int:
        self[key] = str(int(self.get(key) if key in self else 0) + value).encode()
        return int(self[key])


def test_ranks_that_start_again_agree_on_a_new_name() -> None:
    """In the store lies what an earlier start has written: its name, and that rank 1 has agreed."""
    store = _Store()
    store.set("leader", "old")
    store.set("old/1", "answer")
    store.set("old/all", "answer")
    looks = iter(["old", "new"])  # rank 0 comes later than rank 1

    class Late(_Store):
        """In which rank 0 appears at the second look, and answers at once."""

        def get(self, key: str, default: object = None) -> bytes:  # type: ignore[override]
            return next(looks).encode() if key == "leader" else super().get(key)

        def set(self, key: str, value: str) -> None:
            super().set(key, value)
            if key == "new/1":
                super().set("new/all", value)

    assert agree(Late(store), Place(1, 2, 1)) == "new"
    assert final_code(store) is None
    note_final(store, 3)
    assert final_code(store) == 3


def test_a_torchrun_finds_its_own_run_only(tmp_path: Path) -> None:
    def note(config: str = "a", **environment: str) -> TorchrunNote:
        return TorchrunNote(tmp_path / "outputs", config, {f"TORCHELASTIC_{k}": v for k, v in environment.items()})

    assert note(RUN_ID="7").find() is None
    (run := tmp_path / "outputs" / "run").mkdir(parents=True)
    note(RUN_ID="7").note_run(run, 0)
    note(RUN_ID="none").note_run(run, 0)
    assert note(RUN_ID="7").find() is None  # nothing to resume from
    (run / "config.yaml").touch()
    assert note(RUN_ID="7").find() == run
    assert note("b", RUN_ID="7").find() is None
    assert note(RUN_ID="8").find() is None
    assert note(RUN_ID="none").find() is None  # any torchrun is called so
    assert note(RUN_ID="none", RESTART_COUNT="1").find() == run
    note(RUN_ID="7").forget()
    assert note(RUN_ID="7").find() is None


def test_one_rank_of_torchrun_may_become_several() -> None:
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert place_of_this_process(alone) is None
    assert place_of_this_process({**alone, "TORCHELASTIC_RUN_ID": "7"}) == Place(0, 1, 0)


@pytest.mark.slow
def test_a_killed_rank_of_torchrun_starts_again(agent: Callable[..., Agent], tmp_path: Path) -> None:
    expected = trained(tmp_path / "own", *WORDS, "epochs=40", "device.count=2")
    torchrun = agent(("--nproc-per-node=2", "--max-restarts=2"), (*WORDS, "epochs=40"))
    _comes(lambda: _step(tmp_path) >= 6)
    os.kill(torchrun.workers[-1], signal.SIGKILL)
    assert torchrun.process.wait(SECONDS) == 0, torchrun.said
    run = only_run(tmp_path)
    assert fingerprint(run) == fingerprint(expected)
    assert records(run) == records(expected)
    assert not list(tmp_path.glob("outputs/.torchrun*"))


@pytest.mark.slow
def test_what_repeats_is_told_once_by_torchrun_too(agent: Callable[..., Agent], tmp_path: Path) -> None:
    torchrun = agent(("--nproc-per-node=2", "--max-restarts=2"), (*WORDS, "optim.lr=1e30"))
    assert torchrun.process.wait(SECONDS) == 1
    assert torchrun.said.count("error: diverged at step") == 1
    assert len([path for path in tmp_path.glob("outputs/*/*") if path.is_dir()]) == 1


@pytest.mark.slow
def test_a_stopped_rank_of_torchrun_is_named(agent: Callable[..., Agent], tmp_path: Path) -> None:
    torchrun = agent(("--nproc-per-node=2",), (*ENDLESS, "device.timeout=3"))
    _comes(lambda: _step(tmp_path) >= 3)
    workers = torchrun.workers
    os.kill(workers[1], signal.SIGSTOP)
    assert torchrun.process.wait(SECONDS) == 1
    assert "error: rank 1 gave no sign of life for device.timeout seconds" in torchrun.said
    assert not any(map(is_alive, workers))


@pytest.mark.slow
def test_no_rank_outlives_its_torchrun(agent: Callable[..., Agent], tmp_path: Path) -> None:
    torchrun = agent(("--nproc-per-node=2",), ENDLESS)
    _comes(lambda: _step(tmp_path) >= 3)
    workers = torchrun.workers
    torchrun.process.kill()
    _comes(lambda: not any(map(is_alive, workers)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_machine_joins_and_leaves(agent: Callable[..., Agent], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = (
        *("--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=job"),
        *(f"--rdzv-endpoint=localhost:{port}", "--rdzv-conf=last_call_timeout=1,keep_alive_interval=1"),
    )
    own = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # with a common store, torch 2.14 never lets a machine join
    first = agent(flags, ENDLESS, **own)
    _comes(lambda: _step(tmp_path) >= 3)
    second = agent(flags, ENDLESS, **own)
    _comes(lambda: " on 2 ranks" in _log(tmp_path))
    joined = _step(tmp_path)
    _comes(lambda: _step(tmp_path) > joined + 3)
    workers = second.workers
    second.process.kill()
    _comes(lambda: not any(map(is_alive, workers)))
    left = _step(tmp_path)
    _comes(lambda: _log(tmp_path).count(" steps (") == 3 and _step(tmp_path) > left + 3)
    assert first.process.poll() is None
    first.process.terminate()
    assert first.process.wait(SECONDS) == 1
    starts = [line for line in _log(tmp_path).splitlines() if " steps (" in line]
    assert [("resumes" in line, " ranks " in line) for line in starts] == [(False, False), (True, True), (True, False)]
    steps = [line["step"] for line in records(only_run(tmp_path)) if line["split"] == "train"]
    assert steps == [*range(1, len(steps) + 1)]
