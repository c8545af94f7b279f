"""Sweeps whose jobs are trained as one program: each job is as its separate run, whatever happens to the others."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bigmodel.sweep.directory import Entry
from bigmodel.sweep.programs import programs
from bigmodel.vectorized.turns import Question, Turns
from conftest import Answer, records
from forks import finished, until
from warm import only_sweep, sweep, swept, table

AS_ONE = "hydra/launcher=vectorized"
JOB = ("device=cpu", "device.threads=1", "limit_batches=3", "epochs=2", "log_every=1steps", "listeners=[console]")
MLP = ("model=mlp", "model.hidden=[16]", "model.dropout=0.2", "optim.lr=0.1,0.02", "loss.label_smoothing=0,0.2")
CNN = ("model=cnn", "model.channels=4", "model.hidden=16", "optim=adamw", "optim.weight_decay=0,0.1", "seed=1,2")
OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    def forward(self, x):
        return self.body(x if x.mean() > 100 else x + 1)
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


@pytest.mark.parametrize("words", [MLP, CNN], ids=["mlp-sgd", "cnn-adamw"])
def test_each_job_is_as_its_separate_run(words: tuple[str, ...], tmp_path: Path, cli: Callable[..., Answer]) -> None:
    code, said = swept(AS_ONE, *JOB, *words, cwd=tmp_path / "one")
    assert code == 0, said
    separate, told = swept(*JOB, *words, cwd=tmp_path / "each")
    assert separate == 0, told
    assert "4 jobs as 1 program, " in said
    assert "by themselves" not in said
    assert [row[:3] for row in table(said)] == [row[:3] for row in table(told)]
    one, each = only_sweep(tmp_path / "one"), only_sweep(tmp_path / "each")
    for number in range(4):
        same(each / str(number), one / str(number))
        said_of_it = (one / "jobs" / f"{number}.txt").read_text()
        assert said_of_it.count("starts: 6 steps") == 1
        assert f"/{number}\n" in said_of_it
    losses = [json.loads(cli(f"run={run / '1'}", "format=json", verb="evaluate").out)["loss"] for run in (one, each)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    again = cli(f"resume={one / '0'}", "epochs=3")
    assert again.code == 0, again.err


def test_one_that_diverges_harms_no_other(tmp_path: Path) -> None:
    words = (*JOB, "model=mlp", "model.hidden=[16]", "optim.lr=0.05,1e30,0.02")
    code, said = swept(AS_ONE, *words, cwd=tmp_path / "one")
    separate, _ = swept(*words, cwd=tmp_path / "each")
    assert (code, separate) == (4, 4), said
    assert [row[2] for row in table(said)] == ["done", "failed (exit code 4)", "done"], said
    one, each = only_sweep(tmp_path / "one"), only_sweep(tmp_path / "each")
    for number in (0, 2):
        same(each / str(number), one / str(number))
    ended = [json.loads((where / "1" / "summary.json").read_text()) for where in (one, each)]
    assert ended[0]["step"] == ended[1]["step"]
    assert ended[0]["error"].partition(":")[0] == ended[1]["error"].partition(":")[0]


def test_what_cannot_be_one_program_says_why(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "mine" / "model" / "own.yaml").write_text("_target_: own_net.Net\n")
    own = ("--config-dir=mine", "model=own", "trust=[own_net]")
    code, said = swept(AS_ONE, *own, *JOB, "optim.lr=0.1,auto", "seed=1,2", cwd=tmp_path)
    assert code == 0, said
    assert "jobs 2, 3 not as one program with others: optim.lr=auto" in said
    assert "jobs 0, 1 by themselves: its model cannot be computed for many jobs at once: " in said
    assert [row[2] for row in table(said)] == ["done"] * 4


LONGER = (
    *(AS_ONE, *JOB, "epochs=30", "evaluate_every=10epoch", "save_every=5steps"),
    *("model=mlp", "model.hidden=[8]", "model.dropout=0.1", "seed=1,2,3"),
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three jobs that nothing happened to."""
    cwd = tmp_path_factory.mktemp("unbroken")
    code, said = swept(*LONGER, cwd=cwd)
    assert code == 0, said
    return only_sweep(cwd)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_what_was_cut_off_goes_on_as_one_program(number: signal.Signals, unbroken: Path, tmp_path: Path) -> None:
    process = sweep(*LONGER, cwd=tmp_path)
    assert until(lambda: list(tmp_path.glob("outputs/sweeps/*/1/checkpoints/step-*")), process)
    os.kill(process.pid, number)
    assert finished(process) == (75 if number == signal.SIGTERM else -number)
    directory = only_sweep(tmp_path)
    assert not list(directory.glob("*/summary.json")) or number == signal.SIGTERM
    code, said = swept(f"resume={directory.relative_to(tmp_path)}", cwd=tmp_path)
    assert code == 0, said
    assert "as 1 program" in said
    for job in range(3):
        assert "resumes at step" in (directory / str(job) / "train.log").read_text()
        steps = [record["step"] for record in records(directory / str(job)) if record["split"] == "train"]
        assert steps == list(range(1, 91))
        same(unbroken / str(job), directory / str(job))


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
