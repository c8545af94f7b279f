"""Worker processes that die, get no shared memory, or lose their parent: a line and an end, never a hang."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from bigmodel.datasets.loading import streaming
from campaign import SEED
from conftest import contents, only_run
from forks import finished, launch, until
from mounts import mounted

pytestmark = pytest.mark.slow  # make test-all

# a plain network; decoding a picture takes SLOW_DATA seconds, so that workers are there to be killed
PACKAGE = """
import os, time
from torch import nn
from bigmodel.datasets.images import picture_files as files
open_image = files.open_image
files.open_image = lambda *rest: (time.sleep(float(os.environ.get("SLOW_DATA", 0))), open_image(*rest))[1]
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))
    def forward(self, x):
        return self.body(x)
"""
RUN = (
    *("device=cpu", "device.threads=1", "~model", "+model={_target_: slow_pkg.Net}", "trust=[slow_pkg]", "keep=9"),
    *("dataset=image_folder", "dataset.input_shape=[3,64,64]", "dataset.val_fraction=0.2", "save_every=2steps"),
    *("batch_size=8", "epochs=2", "resident_gb=0", "workers=2", "log_every=1steps", "listeners=[]"),
)
SECONDS = 10
SMALL = (300, 4, 200, 20, 320, 280)  # KB: batches of 98 KB meet it, or the locks of the workers' queues


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for kind in ("round", "square"):
        (root / kind).mkdir()
        for number in range(30):
            pixels = torch.randint(256, (16, 16, 3), dtype=torch.uint8, generator=generator)
            Image.fromarray(pixels.numpy()).save(root / kind / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def unbroken(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("unbroken")
    process = _launch(pictures, cwd)
    assert finished(process) == 0, (cwd / "said").read_text()
    return only_run(cwd)


def _launch(pictures: Path, cwd: Path, slow: float = 0, **options):
    cwd.mkdir(exist_ok=True)
    (cwd / "slow_pkg.py").write_text(PACKAGE)
    words = (*RUN, f"dataset.root={pictures}")
    return launch(*words, cwd=cwd, output=cwd / "said", environment={"SLOW_DATA": str(slow)}, **options)


def _goes_on(cwd: Path, unbroken: Path) -> None:
    """Resumed at once and without the fault, the run ends with the bits of the unbroken one."""
    output = cwd / "again"
    code = finished(launch(f"resume={only_run(cwd)}", "trust=[slow_pkg]", cwd=cwd, output=output))
    assert code == 0, output.read_text()
    assert contents(only_run(cwd)) == contents(unbroken)


def _session(leader: int) -> list[int]:
    """The living processes of the session that this one leads, without it."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(session) == leader and int(stat.parent.name) != leader and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def _busy(process, cwd: Path, steps: int) -> list[int]:
    """Its workers, once the run has them and has made so many steps."""

    def ready() -> bool:
        lines = sum(len(file.read_text().splitlines()) for file in cwd.glob("outputs/*/*/metrics.jsonl"))
        return lines >= steps and len(_session(process.pid)) >= 2

    assert until(ready, process), (cwd / "said").read_text()
    return _session(process.pid)


def test_a_killed_worker_ends_the_run_in_a_line(
    campaign: Callable, pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    for trial in campaign("a data worker is killed, resume", key="WORKERS", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            process = _launch(pictures, cwd, slow=0.02)
            workers = _busy(process, cwd, trial.random.randint(0, 5))
            time.sleep(trial.random.uniform(0, 0.2))
            os.kill(trial.random.choice(workers), signal.SIGKILL)
            assert finished(process, SECONDS) == 6, (cwd / "said").read_text()
            (line,) = _beside_the_data((cwd / "said").read_text())
            assert re.match(r"error: .*worker.*killed", line), line
            assert "workers" in line
            _none_left(process.pid)
            _goes_on(cwd, unbroken)


def _read_slowly(indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Take longer than the pause between two looks at the workers."""
    time.sleep(0.3)
    return (10 * indices,)


def test_a_slow_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "POLL_S", 0.05)
    before = signal.getsignal(signal.SIGCHLD)
    batches = streaming.stream(_read_slowly, torch.arange(6).split(2), torch.device("cpu"), workers=1)
    assert [(indices.tolist(), tens.tolist()) for indices, (tens,) in batches] == [
        ([0, 1], [0, 10]),
        ([2, 3], [20, 30]),
        ([4, 5], [40, 50]),
    ]
    assert signal.getsignal(signal.SIGCHLD) == before


def test_too_little_shared_memory(campaign: Callable, pictures: Path, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("/dev/shm too small for the data workers, resume", key="SHM", quick=1, full=20):
        with trial:
            cwd = tmp_path / str(trial.number)
            with mounted(Path("/dev/shm"), f"size={SMALL[trial.number % len(SMALL)]}k") as mount:
                process = _launch(pictures, cwd, before=mount.enter)
                code, said = finished(process, SECONDS), (cwd / "said").read_text()
            assert code == 6, said
            (line,) = _beside_the_data(said)
            assert re.match(r"error: .*shared memory", line), line
            assert "workers" in line
            _none_left(process.pid)
            _goes_on(cwd, unbroken)


@pytest.mark.slow
def test_no_worker_outlives_the_run(campaign: Callable, pictures: Path, unbroken: Path, tmp_path: Path) -> None:
    fault = "the parent of data workers dies by INT, TERM or KILL, resume"
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    for trial in campaign(fault, key="PARENT", quick=1, full=30):
        with trial:
            cwd = tmp_path / str(trial.number)
            number = numbers[(trial.number + SEED) % 3]
            process = _launch(pictures, cwd, slow=0.02)
            _busy(process, cwd, trial.random.randint(0, 5))
            os.kill(process.pid, number)
            code = finished(process, SECONDS)
            assert code == (-number if number == signal.SIGKILL else 75), (cwd / "said").read_text()
            _goes_on(cwd, unbroken)  # before the workers have noticed: they must not hold the run
            _none_left(process.pid)


def _beside_the_data(said: str) -> list[str]:
    """What a run says but for the line about its data at the start."""
    first, *others = said.splitlines()
    assert first == "train: 60 pictures: round 30, square 30", said
    return others


def _none_left(leader: int) -> None:
    deadline = time.monotonic() + SECONDS
    while left := _session(leader):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)
