"""`profile=true`: a table that adds up, a trace that viewers read, and a run that is the same to the last bit."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bigmodel.interfaces import Batch
from bigmodel.optim.muon import Muon
from bigmodel.runtime.device import Device
from bigmodel.tasks.classification import Classification
from bigmodel.tasks.losses import CrossEntropy
from bigmodel.training.tuning import peak_flops as peak
from bigmodel.training.tuning.cost import LOSS, estimate_step_cost
from bigmodel.training.tuning.peak_flops import measure_peak_flops
from bigmodel.training.tuning.phase_timer import PHASES, PhaseTimer
from conftest import TINY, Answer, fingerprint, is_quiet, records


@pytest.fixture(autouse=True)
def quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_TRIAL_S", 0.01)
    monkeypatch.setitem(peak._MATRICES, "cpu", (64, 128))
    monkeypatch.setitem(peak._FILTERS, "cpu", ((4, 8, 16),))


def _seconds(text: str) -> dict[str, float]:
    rows = re.findall(r"(?m)^ +(\w+) +(\d+\.\d+) +\d+\.\d%", text)
    return {name: float(seconds) for name, seconds in rows}


def test_the_phases_add_up_to_the_run(cli: Callable[..., Answer]) -> None:
    answer = cli(*TINY[:3], "epochs=8", "profile=true")
    assert answer.code == 0, answer.err
    text = (answer.run / "profile.txt").read_text(encoding="utf-8")
    assert answer.out.endswith(text)
    assert all(len(line) <= 80 for line in text.splitlines() if "trace.json" not in line)
    seconds = _seconds(text)
    assert list(seconds) == [*PHASES, "whole"]
    assert sum(seconds[phase] for phase in PHASES) == pytest.approx(seconds["whole"], abs=0.01)
    summary = json.loads((answer.run / "summary.json").read_text())
    assert seconds["whole"] == pytest.approx(summary["seconds"], rel=0.1, abs=0.05)
    loop = summary["data_s"] + summary["step_s"]  # by the loop's own clock, traced steps included
    steps = sum(seconds[phase] for phase in ("data", "forward", "backward", "optimizer", "waiting"))
    assert loop - seconds["tracing"] <= steps + 0.01
    assert all(seconds[phase] > 0 for phase in ("data", "forward", "backward", "optimizer", "evaluation"))
    assert seconds["other"] < 0.5 * seconds["whole"]
    assert re.search(r"achieved +[\d.e+]+ [kMGT]?FLOP/s, \d+\.\d% of the peak", text)
    assert re.search(r"gradients +4\.84 kB", text)  # 4 * (64 * 16 + 16 + 16 * 10 + 10)
    assert re.search(r"Linear \S+ +4\.16 kB", text)


def test_the_trace_shows_the_phases_of_a_few_steps(cli: Callable[..., Answer]) -> None:
    answer = cli(*TINY[:3], "epochs=1", "profile=true")
    assert answer.code == 0, answer.err
    events = json.loads((answer.run / "trace.json").read_text())["traceEvents"]
    marks = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert marks.count("optimizer") == marks.count("backward") == 5
    assert {"data", "forward"} <= set(marks)
    assert any(event["name"] == "aten::addmm" for event in events)
    assert "steps 6 to 10" in answer.out
    assert answer.err == ""


@pytest.mark.parametrize("pieces", [1, 3])
def test_operations_are_booked_where_they_belong(cli: Callable[..., Answer], pieces: int) -> None:
    answer = cli(*TINY[:3], "epochs=1", "profile=true", f"accumulate={pieces}")
    assert answer.code == 0, answer.err
    events = json.loads((answer.run / "trace.json").read_text())["traceEvents"]
    spans = [(event["name"], event["ts"], event["ts"] + event["dur"]) for event in events if "dur" in event]
    marks = [span for span in spans if span[0] in PHASES]

    def phases_of(operation: str) -> list[str]:
        found = [start for name, start, _ in spans if name == operation]
        return sorted({name for start in found for name, begin, end in marks if begin <= start <= end})

    assert phases_of("aten::addmm") == ["forward"]
    assert phases_of("AddmmBackward0") == ["backward"]
    assert phases_of("aten::_fused_sgd_") == ["optimizer"]


def test_a_profiled_run_is_the_same_run(cli: Callable[..., Answer], tiny_run: Answer) -> None:
    answer = cli(*TINY, "log_every=2steps", "profile=true")
    assert answer.code == 0, answer.err
    assert fingerprint(answer.run) == fingerprint(tiny_run.run)
    assert records(answer.run) == records(tiny_run.run)


def test_a_run_of_one_step_and_a_resumed_one_are_profiled(
    cli: Callable[..., Answer], tiny_run: Answer, tmp_path: Path
) -> None:
    answer = cli(*TINY[:3], "limit_batches=1", "epochs=1", "profile=true")
    assert answer.code == 0, answer.err
    assert (answer.run / "trace.json").is_file()
    run = shutil.copytree(tiny_run.run, tmp_path / "run")
    assert cli(f"resume={run}", "profile=true", "epochs=4").code == 0
    assert "steps 9 to 10" in (run / "profile.txt").read_text()


def test_a_run_that_fails_while_it_is_traced_fails_plainly(cli: Callable[..., Answer]) -> None:
    answer = cli(*TINY, "optim.lr=1e38", "schedule=constant", "monitor=val/loss", "profile=true")
    is_quiet(answer, code=4)
    assert not (answer.run / "profile.txt").exists()
    assert cli(*TINY, "profile=true", cwd=answer.cwd.parent).code == 0  # no trace is left open


def test_time_spent_standing_still_for_workers_is_waiting() -> None:
    class Slow:
        def train_batches(self, first: int, last: int) -> Iterator[Batch]:
            for _ in range(first, last):
                time.sleep(0.05)
                yield Batch(torch.zeros(2, 3), torch.zeros(2))

        def eval_batches(self, split: str) -> Iterator[Batch]:
            return iter(())

    def nothing(*_: Any) -> None:
        return None

    task = SimpleNamespace(train_sums=nothing)
    for workers in (True, False):
        data, job = Slow(), SimpleNamespace(train_step=nothing, forward_backward=nothing, loss=nothing, task=task)
        phases = PhaseTimer(torch.device("cpu"))
        phases.start(job, data, SimpleNamespace(save=nothing, _collect=nothing), workers)  # type: ignore[arg-type]
        for batch in data.train_batches(0, 2):
            job.train_step(batch)
        slow, fast = ("waiting", "data") if workers else ("data", "waiting")
        assert phases.seconds[slow] > 0.08
        assert phases.seconds[fast] < 0.05
        assert len(phases.updates) == 2


def test_activations_are_told_by_module() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    batch = Batch(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
    price = estimate_step_cost(model, Classification(CrossEntropy(), 3), batch, [], 1)
    assert price.activation_bytes == sum(price.activations_of.values())
    assert price.activations_of["0"] == 4 * 6 * 4  # its input
    assert price.activations_of["1"] == 4 * 5 * 4  # its output, which "2" keeps as well
    assert set(price.activations_of) == {"0", "1", LOSS}


def test_the_peak_is_measured_without_touching_the_generator() -> None:
    before = torch.get_rng_state()
    found = measure_peak_flops(Device(kind="cpu"))
    assert found.flops_per_s > 1e7
    assert re.search(r"matrix product|convolution", found.operation)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "Adagrad", "Adafactor", "NAdam", "Muon"])
def test_the_state_of_any_optimizer_is_known_before_its_first_step(name: str) -> None:
    model, batch = nn.Linear(6, 5, bias=False), Batch(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
    optimizer = Muon(model.parameters()) if name == "Muon" else getattr(torch.optim, name)(model.parameters(), lr=0.1)
    cost = estimate_step_cost(model, Classification(CrossEntropy(), 5), batch, [optimizer], 1)
    model(batch.inputs).sum().backward()
    optimizer.step()
    kept = [value.nbytes for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    assert cost.optimizer_bytes == sum(kept)
