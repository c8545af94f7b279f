"""Sweeps whose jobs are trained as one program: each job is as its separate run, whatever happens to the others."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bigmodel.augment import Augment
from bigmodel.conf_directory import conf_directory
from bigmodel.datasets.digits import digits
from bigmodel.datasets.tensors import TensorDataset
from bigmodel.datasets.text import text
from bigmodel.errors import ConfigError
from bigmodel.interfaces import Batch, Dataset, Reading
from bigmodel.sweep.directory import Entry
from bigmodel.sweep.programs import programs
from bigmodel.vectorized.shared import Made, SharedData
from bigmodel.vectorized.turns import Question, Turns
from conftest import Answer, only_run, records
from forks import finished, until
from warm import only_sweep, sweep, swept, table

AS_ONE = "hydra/launcher=vectorized"
JOB = ("device=cpu", "device.threads=1", "limit_batches=3", "epochs=2", "log_every=1steps", "listeners=[console]")
MLP = ("model=mlp", "model.hidden=[16]", "model.dropout=0.2", "optim.lr=0.1,1e30", "loss.label_smoothing=0,0.2")
CNN = ("model=cnn", "model.channels=4", "model.hidden=16", "optim=adamw", "optim.weight_decay=0,0.1", "seed=1,2")
RATES = "lr_scale={conv.*: 0.5},{conv.*: 2}"
OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    def forward(self, x):
        y = self.body(x)
        return y if y.mean() > 100 else y + 1
"""

SLOW = """
import time
from bigmodel.models.mlp import MLP

class Net(MLP):
    def forward(self, x):
        time.sleep(0.01)  # so that a run lasts until a signal comes, however busy the machine
        return super().forward(x)
"""


def same(there: Path, here: Path, of_norm: float = 1e-4) -> None:
    """Two runs of one config left the same files, with numbers that are equal within rounding."""
    assert {file.name for file in there.iterdir()} == {file.name for file in here.iterdir()}
    assert (there / "config.yaml").read_text() == (here / "config.yaml").read_text()
    for name in ("model", "optimizer"):
        ours, theirs = (load_file(_newest(run) / f"{name}.safetensors") for run in (here, there))
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.linalg.norm(ours[key] - tensor) <= of_norm * torch.linalg.norm(tensor) + 1e-7, key
    for ours, theirs in zip(records(here), records(there), strict=True):
        assert ours.pop("split") == theirs.pop("split")
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def _newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


def separate(sweep_path: Path, number: int, cwd: Path, cli: Callable[..., Answer], *words: str) -> Path:
    """The directory of a job's separate run."""
    cwd.mkdir()
    cli(f"--config-path={sweep_path / 'jobs'}", f"--config-name={number}", *words, cwd=cwd)
    return only_run(cwd)


def test_each_job_is_as_its_separate_run(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    code, said = swept(AS_ONE, *JOB, *CNN, RATES, cwd=tmp_path)
    assert code == 0, said
    assert "8 jobs as 1 program, " in said
    assert "by themselves" not in said
    one = only_sweep(tmp_path)
    for number in (0, 7):
        run = separate(one, number, tmp_path / f"{number}", cli)
        same(run, one / str(number))
        said_of_it = (one / "jobs" / f"{number}.txt").read_text()
        assert said_of_it.count("starts: 6 steps") == 1
        assert f"/{number}\n" in said_of_it
    losses = [json.loads(cli(f"run={path}", "format=json", verb="evaluate").out)["loss"] for path in (run, one / "7")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    again = cli(f"resume={one / '0'}", "epochs=3")
    assert again.code == 0, again.err


def test_those_that_diverge_harm_no_other(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    code, said = swept(AS_ONE, *JOB, *MLP, cwd=tmp_path)
    assert code == 4, said
    assert [row[2] for row in table(said)] == ["done"] * 2 + ["failed (exit code 4)"] * 2, said
    one = only_sweep(tmp_path)
    for number in (0, 1):
        same(separate(one, number, tmp_path / f"{number}", cli), one / str(number))
    runs = (one / "2", separate(one, 2, tmp_path / "2", cli))
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in runs)
    assert (ours["step"], ours["error"].partition(":")[0]) == (theirs["step"], theirs["error"].partition(":")[0])


def test_what_cannot_be_one_program_says_why(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "mine" / "model" / "own.yaml").write_text("_target_: own_net.Net\n")
    own = ("--config-dir=mine", "model=own", "trust=[own_net]")
    code, said = swept(AS_ONE, *own, *JOB, "epochs=1", "optim.lr=0.1,0.02,auto", cwd=tmp_path)
    assert code == 0, said
    assert "job 2 not as one program with others: optim.lr=auto" in said
    assert "jobs 0, 1 by themselves: its model cannot be computed for many jobs at once: " in said
    assert [row[2] for row in table(said)] == ["done"] * 3


def test_what_was_cut_off_goes_on_as_one_program(
    tmp_path: Path, cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own" / "model"
    own.mkdir(parents=True)
    mlp = (conf_directory() / "model" / "mlp.yaml").read_text(encoding="utf-8")
    (own / "slow.yaml").write_text(mlp.replace("bigmodel.models.mlp.MLP", "slow_net.Net"))
    (tmp_path / "slow_net.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    trusted, often = "trust=[slow_net]", ("epochs=30", "evaluate_every=10epoch", "save_every=5steps")
    slow = ("--config-dir=own", trusted, "model=slow", "model.hidden=[8]", "model.dropout=0.1")
    started = [AS_ONE, *JOB, *often, *slow, "seed=1,2"]
    for number, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)):
        before = {*tmp_path.glob("outputs/sweeps/*/1/checkpoints/step-*")}
        process = sweep(*started, cwd=tmp_path)
        assert until(lambda seen=before: {*tmp_path.glob("outputs/sweeps/*/1/checkpoints/step-*")} - seen, process)
        os.kill(process.pid, number)
        assert finished(process) == code
        directory = only_sweep(tmp_path)
        assert [json.loads(file.read_text())["state"] for file in directory.glob("*/summary.json")] == [
            "interrupted"
        ] * 2
        started = [f"resume={directory.relative_to(tmp_path)}", trusted]
    code, said = swept(*started, cwd=tmp_path)
    assert code == 0, said
    assert "as 1 program" in said
    for job in range(2):
        assert (directory / str(job) / "train.log").read_text().count("resumes at step") == 2
        steps = [record["step"] for record in records(directory / str(job)) if record["split"] == "train"]
        assert steps == list(range(1, 91))
    same(separate(directory, 1, tmp_path / "separate", cli, trusted), directory / "1", of_norm=1e-3)


def test_data_that_is_shared_is_as_that_of_a_separate_run(tmp_path: Path) -> None:
    inputs, written = torch.arange(40.0).view(20, 2), tmp_path / "text.txt"
    written.write_text("to be, or not to be " * 40)
    how = Reading(torch.device("cpu"), batch_size=4, seed=1)

    def louder(batch: Batch, seed: int, step: int) -> Batch:
        return batch._replace(inputs=batch.inputs * seed + step)

    datasets: list[Dataset] = [
        digits(10, (1, 8, 8), [0.3], [0.3], 0.2, Augment(crop=1)),
        TensorDataset({"train": (inputs, inputs[:, 0])}, {}, "", {}, "", augment=louder),
        text(str(written), "byte", "", str(tmp_path), context=8, val_fraction=0.2),
    ]
    for dataset in datasets:
        shared = SharedData(dataset.open(how), 1, Made())
        expected = dataset.open(replace(how, seed=2))
        for data in (shared.reseeded(2), shared.reseeded(2)):
            for ours, theirs in zip(data.train(3, 9), expected.train(3, 9), strict=True):
                assert all(map(torch.equal, ours, theirs))
    with pytest.raises(ConfigError, match="resident_gb"):
        SharedData(datasets[0].open(replace(how, resident_bytes=10)), 1, Made()).reseeded(2)


def test_programs_hold_jobs_of_one_make() -> None:
    entries = [Entry(number, (), "val/loss", 1.0, "cpu", "ab"[number % 2]) for number in range(40)]
    assert programs([*entries[:4], Entry(9, (), "val/loss", 1.0)], 2) == [[0, 2], [1, 3], [9]]
    assert programs(entries, 2) == [[*range(k, 40, 4)] for k in range(4)]


def test_threads_take_turns_and_meet() -> None:
    log: list[str] = []

    def answer(questions: list[Question]) -> None:
        for question in questions:
            question.answer = len(questions) if question.content else ValueError("on purpose")

    turns = Turns(answer)

    def work(name: str, steps: int) -> None:
        for step in range(steps):
            log.append(f"{name} in")
            met = turns.ask(Question(step, (), name, True))
            assert met == (2 if step < 2 else 1)
            with turns.aside():
                time.sleep(0.002)
            log.append(f"{name} out")
        with pytest.raises(ValueError, match="on purpose"):
            turns.ask(Question(steps, ("last",), name, False))

    turns.run([lambda: work("a", 2), lambda: work("b", 4)])
    assert sorted(log) == sorted(["a in", "a out"] * 2 + ["b in", "b out"] * 4)
    assert all(before != after for before, after in pairwise(log) if before.startswith("a"))
