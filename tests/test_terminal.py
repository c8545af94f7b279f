"""What a terminal shows: something at once, then loss, rate and time left, and a table with the best marked."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from bigmodel.events import Started, Stepped, TrainLogged
from bigmodel.formatting import columns_of
from bigmodel.listeners.eval_table import Cell, EvalTable
from bigmodel.listeners.progress import Progress
from bigmodel.metric_spec import standard_specs
from bigmodel.sweeps import table
from bigmodel.sweeps.state.directory import SweepDirectory
from bigmodel.sweeps.state.jobs import JobProgress, JobSpec
from bigmodel.sweeps.table import SweepDisplay, best_job
from terminal import Training

RUN = ("device=cpu", "device.threads=1", "model=mlp", "model.hidden=[8]", "limit_batches=4")
SPECS = standard_specs("loss", "accuracy", "top5")


def _slowed(data_s: float, step_s: float) -> None:
    """In a child: reading data and each update take this long."""
    from bigmodel.training import build
    from bigmodel.training.state import TrainState

    instantiate, update = build.instantiate, TrainState.train_step

    def slow_instantiate(group: str, *rest: object, **more: object) -> object:
        time.sleep(data_s * (group == "dataset"))
        return instantiate(group, *rest, **more)

    def slow_update(self: TrainState, batch: object) -> None:
        time.sleep(step_s)
        update(self, batch)

    build.instantiate, TrainState.train_step = slow_instantiate, slow_update


def _marked_rows(screen: str) -> list[list[str]]:
    return [line.split() for line in screen.splitlines() if re.match(r"\*? +\d", line)]


def test_a_run_shows_what_it_does_from_its_start_to_its_end(tmp_path: Path) -> None:
    run = Training(*RUN, "epochs=2", "log_every=1000steps", cwd=tmp_path, before=partial(_slowed, 0.5, 0.2))
    assert run.end() == 0
    drawn = "\n".join(run.screen.drawn)
    phases = [
        "reading config",
        "reading data",
        "building the model",
        "starts: 8 steps",
        "first step",
        "step  train loss",
    ]
    assert sorted(phases, key=drawn.index) == phases
    line = next(line for line in run.screen.drawn if "samples/s" in line)  # long before the first log
    assert re.search(r"epoch 1/2 .* \d/8  loss \d\.\d+  [\d.]+ samples/s  \d+ s left", line)
    assert drawn.index(line) < drawn.index("step  train loss")
    assert drawn.count("step  train loss") == 1  # the columns keep their widths
    rows = _marked_rows(run.screen.text)
    assert rows[0][:3] == ["*", "1", "4"]
    assert rows[1][rows[1][0] == "*" :][:2] == ["2", "8"]
    assert "%" in rows[0][5]
    assert "* best so far" in run.screen.text
    assert "samples/s  " not in run.screen.text  # the line is gone
    assert not [line for line in run.screen.wrapped if "epoch" in line]


def _slow_parts() -> None:
    """In a child: opening a run, its data and every batch take this long."""
    from bigmodel.commands import evaluate, predict
    from bigmodel.inference.predictor import Predictor

    def slowed(function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*given: Any, **more: Any) -> Any:
            time.sleep(0.5)
            return function(*given, **more)

        return slow

    for module, names in ((evaluate, ("load", "_open_split", "evaluate")), (predict, ("load",))):
        for name in names:
            setattr(module, name, slowed(getattr(module, name)))
    Predictor.predict_batch = slowed(Predictor.predict_batch)  # type: ignore[method-assign]


@pytest.mark.slow
def test_other_commands_say_what_they_do_until_their_result_is_there(tmp_path: Path) -> None:
    assert Training(*RUN, "epochs=1", cwd=tmp_path).end() == 0
    (trained,) = tmp_path.glob("outputs/*/*")
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    phases = {
        ("evaluate",): ["opening the run", "reading data", "evaluating test", "samples   359"],
        ("predict", "input=one.png"): ["opening the run", "predicting", "one.png  "],
    }
    for (verb, *words), expected in phases.items():
        run = Training(f"run={trained}", "device=cpu", *words, cwd=tmp_path, before=_slow_parts, verb=verb)
        assert run.end() == 0, run.screen.text
        drawn = "\n".join(run.screen.drawn)
        assert sorted(expected, key=drawn.index) == expected
        assert not [phase for phase in expected[:-1] if phase in run.screen.text]


@pytest.mark.parametrize("columns", [12, 40, 80, 200])
@pytest.mark.parametrize("fancy", [False, True])
def test_the_line_of_progress_fits(columns: int, fancy: bool) -> None:
    progress = Progress(Started(0, 10**6, 10**3, "outputs/x", "cpu", "val/accuracy"), fancy)
    lines = [progress.line(columns)]
    progress.set_phase("first step (compiling)")
    lines.append(progress.line(columns))
    for step in range(1, 4):
        progress.add_step(Stepped(step, 64, 2.0))
    lines.append(progress.line(columns))
    metrics = {"loss": 2.0, "accuracy": 0.5, **{f"a_long_name_{number}": 1e-9 for number in range(9)}}
    progress.set_metrics(TrainLogged(3, 0.1, metrics, 0.1, 1.0, 100.0, 0.1, 0.1, SPECS))
    lines.append(progress.line(columns))
    assert all(line.isascii() for line in lines) != fancy
    if columns >= 40:
        assert all(columns_of(line) < columns for line in lines), lines
        assert "loss 2" in lines[-1]
        assert "left" in lines[-1]
    if columns == 200:
        assert "accuracy 50.00%" in lines[-1]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_table_drops_what_a_narrow_terminal_has_no_room_for(columns: int) -> None:
    names = ["val accuracy", "val loss", "val " + "x" * 300, *(f"val 損失{number}" for number in range(9))]
    cells = [Cell("epoch", "1", 0), *(Cell(name, "0.1234", rank, "wide units") for rank, name in enumerate(names, 1))]
    table = EvalTable()
    lines = table.lines(cells, True, columns, 10) + table.lines(cells, False, columns, 10)
    marks = [line.strip("\x1b[132;m")[0] for line in lines]
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert all(columns_of(line) < columns for line in plain), plain
    assert "val accuracy" in plain[0]
    assert ("val 損失0" in plain[0]) == (columns > 40)
    assert "*" in marks
    assert plain[-2].startswith("* ")
    assert plain[-1].startswith("  ")
    header = len(lines) - 2
    later = [len(table.lines(cells, False, columns, 10)) for _ in range(20)]
    assert later.count(header + 1) == 3  # the header comes again where it has scrolled off


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_nothing_that_is_drawn_is_wider_than_the_terminal(columns: int, tmp_path: Path) -> None:
    words = (*RUN, "epochs=6", "log_every=2steps", "output_dir=o")
    run = Training(*words, cwd=tmp_path, columns=columns, before=partial(_slowed, 0.3, 0.06))
    assert run.end() == 0
    drawn = [line for line in run.screen.wrapped if not line.lstrip().startswith(("test", "best", "time", "files"))]
    assert not [line for line in drawn if "bigmodel-" not in line]  # commands are to be copied, and are not cut
    assert len(_marked_rows(run.screen.text)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("signal_at", ["reading data", "samples/s"])
def test_an_interrupt_leaves_a_clean_screen(signal_at: str, tmp_path: Path) -> None:
    run = Training(*RUN, "epochs=99", cwd=tmp_path, columns=200, before=partial(_slowed, 0.6, 0.05))
    run.until(lambda screen: signal_at in screen)
    os.kill(run.process.pid, signal.SIGINT)
    assert run.end() == 75
    *above, last = run.screen.text.splitlines()
    assert not any("left" in line or "reading" in line for line in above)
    assert "resume with: bigmodel-train resume=" in last or last == "stopped by SIGINT; nothing was written"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "ascii"),
    [
        ({"LC_ALL": "C"}, True),
        ({"LC_ALL": "zh_CN.UTF-8"}, True),
        ({"LC_ALL": "", "LC_CTYPE": "", "LANG": ""}, True),
        ({"LC_ALL": "de_DE.UTF-8"}, False),
    ],
)
def test_a_locale_gets_the_signs_it_has(environment: dict[str, str], ascii: bool, tmp_path: Path) -> None:
    run = Training(*RUN, "epochs=4", cwd=tmp_path, before=partial(_slowed, 0.3, 0.1), **environment)
    assert run.end() == 0
    assert run.raw.isascii() == ascii
    assert b"\x1b[1m" not in run.raw  # NO_COLOR


@pytest.mark.slow
def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    run = Training(*RUN, "epochs=2", cwd=tmp_path, before=partial(_slowed, 0.3, 0.1), TERM="dumb")
    assert run.end() == 0
    assert b"\x1b" not in run.raw
    assert "reading data\n" in run.screen.text
    assert "best so far" in run.screen.text


@pytest.mark.slow
def test_a_line_stands_before_torch_is_loaded(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "bigmodel", "train", *RUN], cwd=tmp_path, env=environment, stdout=theirs
    )
    try:
        assert b"reading config" in os.read(ours, 4096)
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def _sweep(*overrides: str, task: str = "accuracy") -> SimpleNamespace:
    """A sweep whose jobs have these overrides, as far as its table asks."""
    jobs = {number: JobSpec(number, (text,), f"val/{task}", 1.0) for number, text in enumerate(overrides)}
    options = SimpleNamespace(jobs=2, threads=1)
    return SimpleNamespace(
        jobs=jobs,
        path=Path("outputs/sweeps/x"),
        settings=options,
        trials=None,
        jobs_per_trial=1,
        distinct_overrides=lambda number: list(jobs[number].overrides),
        summary=lambda number: {},
    )


@pytest.mark.parametrize(
    ("overrides", "best"),
    [
        (("optim.lr=0.1", "optim.lr=0.01"), 1),
        (("model=cnn", "model=mlp"), 1),
        (("dataset=mnist", "dataset=fashion_mnist"), None),
        (("dataset.target=a", "dataset.target=b"), None),
        (("+dataset.val_fraction=0.1", "+dataset.val_fraction=0.2"), None),
    ],
)
def test_no_job_is_marked_best_among_metrics_of_different_data(overrides: tuple[str, ...], best: int | None) -> None:
    progress = {number: JobProgress("running", value=0.5 + number / 10) for number in range(2)}
    assert best_job(cast(SweepDirectory, _sweep(*overrides)), progress) == best


def test_the_table_of_a_sweep_stands_before_its_engine_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    class Live:
        def __init__(self, text: Callable[[int], str]) -> None:
            self._text = text

        def draw(self) -> None:
            drawn.append(self._text(80))

        def close(self) -> None:
            pass

    monkeypatch.setattr(table, "draws_in_place", lambda: True)
    monkeypatch.setattr(table, "LiveText", Live)
    jobs = {0: JobProgress(), 1: JobProgress()}
    with SweepDisplay(cast(SweepDirectory, _sweep("optim.lr=0.1", "optim.lr=0.01")), jobs, 2) as display:
        jobs[0] = JobProgress("running")
        display.started(0)  # its engine has not been asked yet
    assert [line.split() for line in drawn[-1].splitlines()[1:]] == [
        ["0", "optim.lr=0.1", "running"],
        ["1", "optim.lr=0.01", "queued"],
        ["1", "running,", "1", "queued"],
    ]
