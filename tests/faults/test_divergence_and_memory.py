"""Numbers that are none, and memory that is not there: the run stops in words, and what was saved before is sound."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from bigmodel.runs import checkpoint
from bigmodel.runs.manifest import verify
from campaign import SEED
from conftest import fingerprint, records
from forks import finished, launch

# turns bad in the training pass that BAD_AT names; without BAD_AT it is a plain network
PACKAGE = """
import os
import numpy, torch
from torch import nn

kind, bad_at = (os.environ.get("BAD_AT") or "never -1").split()

class Spoiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.clone()
    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        gradient[0, 0] = ctx.value
        return gradient, None

class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(3))
        self.calls = 0
        self.hoard = []
    def forward(self, x):
        y = self.body(x) + 0 * self.unused.sum()
        if not self.training:
            return y
        self.calls += 1
        if self.calls - 1 != int(bad_at):
            return y
        what, _, value = kind.partition(":")
        with torch.no_grad():
            if what == "parameter":
                self.body[1].weight[3, 5] = float(value)
            elif what == "frozen":
                self.unused[1] = float(value)
            elif what == "buffer":
                self.seen[2] = float(value)
        if what == "loss":
            return y * float(value)
        if what == "gradient":
            return Spoiled.apply(y, float(value))
        if what == "torch":
            torch.empty(1 << 58, dtype=torch.uint8)
        if what == "numpy":
            numpy.ones(1 << 58, dtype=numpy.uint8)
        while what == "all":  # until the limit of the process
            self.hoard.append(torch.ones(1 << 20))
        while what == "bytes":
            self.hoard.append(bytes(1 << 22))
        return y
"""
RUN = (
    *("device=cpu", "device.threads=1", "~model", "+model={_target_: bad_pkg.Net}", "trust=[bad_pkg]", "listeners=[]"),
    *("limit_batches=4", "epochs=3", "log_every=1steps", "evaluate_every=3steps", "save_every=1steps", "keep=99"),
)
STEPS = 12
BAD = [f"{what}:{value}" for what in ("loss", "gradient", "parameter", "frozen", "buffer") for value in ("nan", "inf")]
SPARE = 300 << 20


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("unbroken")
    run, _ = _run(cwd, 0)
    return run


def _run(cwd: Path, code: int, *words: str, bad: str = "", before: Callable | None = None) -> tuple[Path, str]:
    """The run directory and what was said, if it ended with this code."""
    cwd.mkdir(exist_ok=True)
    (cwd / "bad_pkg.py").write_text(PACKAGE)
    output = cwd / f"said{len(words)}"
    process = launch(*(words or RUN), cwd=cwd, output=output, environment={"BAD_AT": bad}, before=before)
    ended = finished(process)
    assert ended == code, (bad, output.read_text())
    (run,) = cwd.glob("outputs/*/*")
    return run, output.read_text()


@pytest.mark.slow
def test_divergence_is_stopped_before_it_is_saved(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    fault = "NaN or Inf in the loss, a gradient, a weight or a buffer"
    for trial in campaign(fault, key="DIVERGENCE", quick=2, full=60):
        with trial:
            kind = BAD[(trial.number * 3 + SEED) % len(BAD)]
            at = trial.random.randint(0, STEPS - 1)
            run, said = _run(tmp_path / str(trial.number), 4, bad=f"{kind} {at}")
            (line,) = said.splitlines()
            step = int(re.match(r"error: diverged (?:at|by) step (\d+)", line)[1])
            assert step == at if kind.startswith(("loss", "gradient")) else at <= step <= at + 1, (kind, line)
            assert "optim.lr" in line
            saved = checkpoint.list_checkpoints(run / "checkpoints")
            assert {path.name for path in saved} == {f"step-{number:08d}" for number in range(1, at + 1)}, kind
            for path in saved:
                verify(path)
                for file in path.glob("*.safetensors"):
                    assert all(tensor.isfinite().all() for tensor in load_file(file).values()), (kind, file)
            _best_is_of(run, [r for r in records(unbroken) if r["step"] <= at])
            _is_json(run / "summary.json", state="failed")
            _run(tmp_path / str(trial.number), 0, f"resume={run}", "trust=[bad_pkg]")  # the fault is mended
            assert (fingerprint(run), records(run)) == (fingerprint(unbroken), records(unbroken))


def _best_is_of(run: Path, told: list[dict]) -> None:
    """best.json names the best of these evaluations; of equals the later."""
    held = [(r["accuracy"], r["step"]) for r in told if r["split"] == "val"]
    file = run / "checkpoints" / "best.json"
    assert file.exists() == bool(held)
    if held:
        value, step = max(held)
        assert json.loads(file.read_text()) == {"step": step, "value": value}


def _is_json(file: Path, **expected: object) -> None:
    told = json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(f"{word} in {file}"))
    assert expected.items() <= told.items()


def _little_memory(spare: int = SPARE) -> None:
    """From now on the process gets no more than `spare` bytes of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, resource.RLIM_INFINITY))


def test_memory_runs_out_in_a_step(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("out of memory in a step, resume with more", key="MEMORY", quick=1, full=40):
        with trial:
            kind = ("torch", "all", "bytes", "numpy")[trial.number % 4]
            at = trial.random.randint(0, STEPS - 1)
            limit = _little_memory if kind in ("all", "bytes") else None
            run, said = _run(tmp_path / str(trial.number), 6, bad=f"{kind} {at}", before=limit)
            (line,) = said.splitlines()
            assert line.startswith(f"error: out of memory at step {at};"), line
            assert "accumulate=" in line
            assert "batch_size" in line
            saved = checkpoint.list_checkpoints(run / "checkpoints")
            assert [int(path.name[5:]) for path in saved] == list(range(at, 0, -1))
            for path in saved:
                verify(path)
            assert (run / "config.yaml").read_text() == (unbroken / "config.yaml").read_text()
            _is_json(run / "summary.json", state="failed")
            _run(tmp_path / str(trial.number), 0, f"resume={run}", "trust=[bad_pkg]")
            assert (fingerprint(run), records(run)) == (fingerprint(unbroken), records(unbroken))


def test_a_network_too_large_for_the_memory(campaign: Callable, tmp_path: Path) -> None:
    """Nothing is made to fail on purpose: the limit is met wherever it is met, from the first weights to a save."""
    words = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[200000]", "limit_batches=2", "epochs=1")
    for trial in campaign("a network larger than the memory", key="LARGE", quick=1, full=25):
        with trial:
            cwd = tmp_path / str(trial.number)
            cwd.mkdir()
            spare = trial.random.randint(10, 260) << 20  # weights, gradients and momentum alone are 180 MB
            limit = partial(_little_memory, spare)
            process = launch(*words, "listeners=[]", "save_every=1steps", cwd=cwd, output=cwd / "said", before=limit)
            code, said = finished(process), (cwd / "said").read_text()
            assert code == 6, (spare, said)
            (line,) = said.splitlines()
            assert line.startswith("error: out of memory"), line
            assert "batch_size" in line or "model" in line
            for run in cwd.glob("outputs/*/*"):
                assert "\nbatch_size: 64\n" in (run / "config.yaml").read_text()
                for path in checkpoint.list_checkpoints(run / "checkpoints"):
                    verify(path)
                assert not list((run / "checkpoints").glob(".tmp-*"))
