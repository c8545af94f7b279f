"""A signal in any phase: the step is finished and saved, and the resumed run ends with the bits of an unbroken one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from campaign import SEED
from conftest import contents, fingerprint, only_run
from forks import finished, launch, until

# sends its own process a signal when the phase of SIGNAL_AT comes for the given time; everything else is as usual
PACKAGE = """
import json, os, signal, time
from collections.abc import Sequence
from pathlib import Path
from dataclasses import replace
from torch import nn
from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images import digits as own
from bigmodel.events import Stepped

phase, nth, number, times, note = (os.environ.get("SIGNAL_AT") or "never 0 0 0 -").split()
seen, steps = 0, 0

def at(name):
    global seen
    if name != phase:
        return
    seen += 1
    if seen == int(nth):
        Path(note).write_text(json.dumps(steps))
        for _ in range(int(times)):
            os.kill(os.getpid(), int(number))
            time.sleep(0.02)

def digits(num_classes: int | None, input_shape: Sequence[int], mean: Sequence[float], std: Sequence[float],
           val_fraction: float, augment: ImageAugment):
    at("dataset")
    made = own.digits(num_classes, input_shape, mean, std, val_fraction, augment)
    sources = {name: lambda split=split: (at("load"), split())[1] for name, split in made.sources.items()}
    return replace(made, sources=sources)

class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        at("model")
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 10))
        self.step = nn.Parameter(self.body[1].bias.detach().clone())
    def forward(self, x):
        at("forward" if self.training else "evaluation")
        return self.body(x) + 0 * self.step.sum()

class Sender:
    def __init__(self, directory: Path) -> None:
        at("listener")
    def __call__(self, event: object) -> None:
        global steps
        if isinstance(event, Stepped):
            steps = event.step
        at(type(event).__name__)
    def close(self) -> None:
        at("close")

fsync = os.fsync
os.fsync = lambda descriptor: (at("fsync"), fsync(descriptor))[1]
at("import")
"""
STEPS = 12
RUN = (
    *("device=cpu", "device.threads=1", "~model", "+model={_target_: signals_pkg.Net}", "trust=[signals_pkg]"),
    *("dataset._target_=signals_pkg.digits", "listeners=[]", "+listeners.sender={_target_: signals_pkg.Sender}"),
    *("limit_batches=4", "epochs=3", "log_every=3steps", "evaluate_every=4steps", "save_every=2steps", "ema=0.9"),
)
RESUME = ("trust=[signals_pkg]",)
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
BEFORE = ("import", "dataset", "model")  # nothing is on the disk yet
# each with how often it comes in a run
PHASES = {
    **dict.fromkeys((*BEFORE, "listener", "Started", "load", "Finished", "close"), 1),
    **{"forward": STEPS, "Stepped": STEPS, "TrainLogged": 4, "Evaluated": 4, "Saved": 5, "evaluation": 13, "fsync": 30},
}
PAIRS = [(phase, number) for number in NUMBERS for phase in PHASES]
random.Random(SEED).shuffle(PAIRS)  # so that the few trials of `make test` are not always the same


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("unbroken")
    _package(cwd)
    assert finished(launch(*RUN, cwd=cwd, output=cwd / "said")) == 0, (cwd / "said").read_text()
    return only_run(cwd)


def _package(cwd: Path) -> None:
    cwd.mkdir(exist_ok=True)
    (cwd / "signals_pkg.py").write_text(PACKAGE)


def _ends_well(cwd: Path, unbroken: Path, code: int, at: int | None) -> None:
    """What was saved and said agree, and resumed it becomes the unbroken run. `at`: steps done as the signal fell."""
    said = (cwd / "said").read_text()
    assert "Traceback" not in said
    if "nothing was written" in said:
        assert code == 75
        assert not (cwd / "outputs").exists(), said
        return
    run = only_run(cwd)
    summary = json.loads((run / "summary.json").read_text())
    if code == 0:
        assert said == ""
        assert at is None or at >= STEPS - 1
    else:
        assert code == 75, said
        (line,) = said.splitlines()
        step = int(re.fullmatch(r"stopped by SIG\w+ at step (\d+) of 12, saved; .* resume=\S+.*", line)[1])
        assert summary["state"] == "interrupted"
        assert summary["step"] == step < STEPS
        assert next(iter(fingerprint(run))).startswith(f"step-{step:08d}")
        assert at is None or step <= at + 1, f"went on from step {at} to {step}"
        assert finished(launch(f"resume={run}", *RESUME, cwd=cwd)) == 0
    assert contents(run) == contents(unbroken)
    assert not list((run / "checkpoints").glob(".tmp-*"))


@pytest.mark.slow
def test_each_signal_in_each_phase(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("SIGTERM, SIGINT, SIGUSR1, SIGHUP in each phase, resume", key="SIGNALS", quick=4, full=90):
        with trial:
            phase, number = PAIRS[trial.number % len(PAIRS)]
            cwd = tmp_path / str(trial.number)
            _package(cwd)
            moment = f"{phase} {trial.random.randint(1, PHASES[phase])} {int(number)} 1 {cwd / 'moment'}"
            process = launch(*RUN, cwd=cwd, output=cwd / "said", environment={"SIGNAL_AT": moment})
            code = finished(process, 30)
            assert (cwd / "moment").exists(), f"{moment} never came"
            if phase in BEFORE:
                assert "nothing was written" in (cwd / "said").read_text(), moment
            _ends_well(cwd, unbroken, code, json.loads((cwd / "moment").read_text()))


def test_a_signal_at_any_moment(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    for trial in campaign("a signal at a random moment, resume", key="SIGNALS_RANDOM", quick=1, full=90):
        with trial:
            cwd = tmp_path / str(trial.number)
            _package(cwd)
            process = launch(*RUN, cwd=cwd, output=cwd / "said")
            assert until(lambda pid=process.pid: _listens(pid), process)
            time.sleep(trial.random.uniform(0, 0.8))
            if process.exitcode is None:
                os.kill(process.pid, trial.random.choice(NUMBERS))
            _ends_well(cwd, unbroken, finished(process, 30), None)


def test_a_second_signal_ends_at_once(campaign: Callable, unbroken: Path, tmp_path: Path) -> None:
    phases = [phase for phase in PHASES if phase not in (*BEFORE, "Finished", "close")]
    for trial in campaign("a second signal: ends at once, resume", key="SIGNALS_TWICE", quick=1, full=60):
        with trial:
            phase, number = trial.random.choice(phases), trial.random.choice(NUMBERS)
            cwd = tmp_path / str(trial.number)
            _package(cwd)
            moment = f"{phase} {trial.random.randint(1, PHASES[phase])} {int(number)} 2 {cwd / 'moment'}"
            process = launch(*RUN, cwd=cwd, output=cwd / "said", environment={"SIGNAL_AT": moment})
            assert finished(process, 10) == 128 + number, (moment, (cwd / "said").read_text())
            assert (cwd / "said").read_text() == ""
            run = only_run(cwd)
            if not (run / "config.yaml").exists():  # it had just made the directory
                assert not (run / "checkpoints").exists()
                continue
            assert finished(launch(f"resume={run}", *RESUME, cwd=cwd)) == 0
            assert contents(run) == contents(unbroken)
            assert not list((run / "checkpoints").glob(".tmp-*"))


def _listens(pid: int) -> bool:
    """Whether the process has set its handlers; before that a signal finds Python still starting."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1)
