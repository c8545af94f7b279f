"""The engines of other machines, for real: submitit's local executor, and a Ray cluster on loopback.

Each job loads torch in a process of its own, so these take a minute: `make test-clusters` runs them.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from conftest import fingerprint, records
from forks import finished, until
from warm import only_sweep, sweep, table

pytestmark = [
    pytest.mark.skipif(os.environ.get("BIGMODEL_CLUSTERS") != "1", reason="starts real engines: make test-clusters"),
    pytest.mark.timeout(1800),
]
PACKAGE = """
import time
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        if width == 5 and not Path("healed").exists():
            raise OSError("on purpose")
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    def forward(self, x):
        time.sleep(1.5 if self.training and Path("slow").exists() else 0)
        return self.body(x)
"""
JOB = (
    *("--config-dir=mine", "model=own", "device=cpu", "device.threads=1", "limit_batches=10", "epochs=2"),
    *("save_every=1steps", "log_every=1steps", "listeners=[]", "trust=[clusters_pkg]", "model.width=4,5,6"),
)
SECONDS = 900


def _project(cwd: Path) -> Path:
    (cwd / "mine" / "model").mkdir(parents=True)
    (cwd / "clusters_pkg.py").write_text(PACKAGE)
    (cwd / "mine" / "model" / "own.yaml").write_text("_target_: clusters_pkg.Net\nwidth: 4\n")
    return cwd


def _swept(*words: str, cwd: Path) -> tuple[int, str]:
    (cwd / "said").unlink(missing_ok=True)
    code = finished(sweep(*words, cwd=cwd), SECONDS)
    return code, (cwd / "said").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep in processes of this machine; its directory."""
    cwd = _project(tmp_path_factory.mktemp("unbroken") / "it")
    (cwd / "healed").touch()
    code, said = _swept(*JOB, cwd=cwd)
    assert code == 0, said
    return only_sweep(cwd)


def _started(directory: Path) -> list[int]:
    lines = (directory / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    return [event["job"] for event in map(json.loads, lines) if event["event"] == "started"]


def _resume(directory: Path, cwd: Path) -> tuple[str, ...]:
    return (f"resume={directory.relative_to(cwd)}", "trust=[clusters_pkg]")


def _begun(cwd: Path, *numbers: int) -> bool:
    return all([*cwd.glob(f"outputs/sweeps/*/{number}/metrics.jsonl")] for number in numbers)


@pytest.fixture(params=["slurm", "ray"])
def launcher(request: pytest.FixtureRequest) -> tuple[str, ...]:
    module, own = {"slurm": ("submitit", "executor=local"), "ray": ("ray", "address=local")}[request.param]
    pytest.importorskip(module, reason=f"an optional extra: pip install 'bigmodel-train[{request.param}]'")
    if request.param == "ray" and "RAY_ADDRESS" in os.environ:  # a cluster that is there already
        own = "address=auto"
    return f"hydra/launcher={request.param}", f"hydra.launcher.{own}"


def test_stopped_failed_and_resumed_it_ends_as_in_processes_here(
    launcher: tuple[str, ...], unbroken: Path, tmp_path: Path
) -> None:
    cwd = _project(tmp_path / "it")
    (cwd / "slow").touch()
    process = sweep(*JOB, *launcher, "jobs=3", cwd=cwd)
    assert until(lambda: _begun(cwd, 0, 2), process, SECONDS), (cwd / "said").read_text()
    os.kill(process.pid, signal.SIGINT)
    assert finished(process, SECONDS) == 75, (cwd / "said").read_text()
    directory, said = only_sweep(cwd), (cwd / "said").read_text()
    assert [row[2] for row in table(said)][::2] == ["interrupted", "interrupted"], said
    assert f"to resume: bigmodel-train -m {' '.join(_resume(directory, cwd))}" in said

    (cwd / "slow").unlink()
    code, said = _swept(*_resume(directory, cwd), cwd=cwd)
    assert code == 1, said
    assert [row[2].split()[0] for row in table(said)] == ["done", "failed", "done"], said
    assert "job 1 failed (exit code 1): " in said
    assert "on purpose" in said
    for number in (0, 2):
        assert "resumes at step" in (directory / str(number) / "train.log").read_text()

    before = len(_started(directory))
    (cwd / "healed").touch()
    code, said = _swept(*_resume(directory, cwd), cwd=cwd)
    assert (code, _started(directory)[before:]) == (0, [1]), said
    for number in range(3):
        assert fingerprint(directory / str(number)) == fingerprint(unbroken / str(number))
        assert records(directory / str(number)) == records(unbroken / str(number))


def test_jobs_outlive_their_sweep_are_queued_again_and_found_again(unbroken: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="an optional extra: pip install 'bigmodel-train[slurm]'")
    cwd = _project(tmp_path / "it")
    (cwd / "healed").touch()
    (cwd / "slow").touch()
    process = sweep(*JOB, "hydra/launcher=slurm", "hydra.launcher.executor=local", "jobs=2", cwd=cwd)
    assert until(lambda: _begun(cwd, 0, 1), process, SECONDS), (cwd / "said").read_text()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    directory = only_sweep(cwd)
    before = [json.loads((directory / "jobs" / f"{number}.start.json").read_text()) for number in (0, 1)]
    (task,) = Path(f"/proc/{before[0]['id']}/task/{before[0]['id']}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)  # as before a time limit or a preemption

    (cwd / "slow").unlink()
    code, said = _swept(*_resume(directory, cwd), cwd=cwd)
    assert code == 0, said
    after = [json.loads((directory / "jobs" / f"{number}.start.json").read_text()) for number in (0, 1)]
    assert after == before
    resumed = ["resumes at step" in (directory / str(number) / "train.log").read_text() for number in range(3)]
    assert resumed == [True, False, False]
    for number in range(3):
        assert fingerprint(directory / str(number)) == fingerprint(unbroken / str(number))
        assert records(directory / str(number)) == records(unbroken / str(number))
