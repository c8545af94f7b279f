"""A run that was stopped, killed or damaged goes on to exactly the bits of one that was not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.config.saved import load_config
from bigmodel.errors import Interrupted
from conftest import TINY, Answer, _process_state, call, contents, fingerprint, is_quiet, python, records, start
from forks import finished, launch, until

# everything that keeps state or draws random numbers, at intervals that do not divide each other
FULL = (
    *("device=cpu", "model=mlp", "model.hidden=[16]", "model.dropout=0.1", "dataset.augment.flip=true"),
    *("optim=adamw", "ema=0.9", "accumulate=2", "clip_norm=1", "limit_batches=5", "epochs=2"),
    *("log_every=3steps", "evaluate_every=4steps", "save_every=100epochs", "listeners=[console,csv]"),
)
AUGMENTED = (
    *("dataset.augment.flip=alternating", "dataset.augment.crop=2", "dataset.augment.padding=reflect"),
    *("dataset.augment.colour=0.5", "dataset.augment.cutout=3"),
    *("dataset.augment.mixup=0.2", "dataset.augment.cutmix=1"),
)
LONG = (
    *("device=cpu", "model=mlp", "model.hidden=[16]", "model.dropout=0.1", "ema=0.9", "accumulate=2"),
    *("epochs=3", "log_every=7steps", "save_every=10steps", "evaluate_every=1epoch"),
)


class StopAt:
    """Asks the loop to stop once it has asked so many times."""

    name = "a test"

    def __init__(self, calls: int) -> None:
        self._left = calls

    def defer(self) -> None:
        pass

    def __call__(self) -> bool:
        self._left -= 1
        return self._left == 0


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    answer = call(*FULL, cwd=tmp_path_factory.mktemp("unbroken"))
    assert answer.code == 0, answer.err
    return answer.run


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In this process; those it is compared with have processes of their own."""
    answer = call(*LONG, cwd=tmp_path_factory.mktemp("long"))
    assert answer.code == 0, answer.err
    return answer.run


def _train(run: Path, stop: StopAt, *, resume: bool) -> None:
    from bigmodel.commands.train import run as train

    with _process_state():
        train(load_config(run / "config.yaml"), stop, run, resume=resume)  # type: ignore[arg-type]


def _interrupted(source: Path, target: Path, step: int) -> Path:
    """A new run of `source`'s config, stopped after `step` steps."""
    from bigmodel.commands.train import run as train

    with _process_state(), pytest.raises(Interrupted, match=f"at step {step} of"):
        train(load_config(source / "config.yaml"), StopAt(step), target)  # type: ignore[arg-type]
    return target


@pytest.mark.parametrize("step", range(1, 10))
def test_from_every_step_of_two_epochs(unbroken: Path, tmp_path: Path, step: int) -> None:
    run = _interrupted(unbroken, tmp_path / "run", step)
    assert json.loads((run / "summary.json").read_text())["state"] == "interrupted"
    _train(run, StopAt(-1), resume=True)
    assert fingerprint(run) == fingerprint(unbroken)
    assert records(run) == records(unbroken)
    assert len(fingerprint(run)) == 3  # model, optimizer, ema
    assert contents(run) == contents(unbroken)


def test_stopped_after_every_single_step(unbroken: Path, tmp_path: Path) -> None:
    run = _interrupted(unbroken, tmp_path / "run", 1)
    for step in range(2, 10):
        with pytest.raises(Interrupted, match=f"at step {step} of"):
            _train(run, StopAt(1), resume=True)
    _train(run, StopAt(-1), resume=True)
    assert contents(run) == contents(unbroken)


def test_it_leaves_the_same_wherever_it_is_resumed_from(
    cli: Callable[..., Answer], unbroken: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    for name, cwd in (("run", tmp_path), ("../run", other), (str(tmp_path / "run"), other), ("link/run", tmp_path)):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        run = _interrupted(unbroken, tmp_path / "run", 5)
        answer = cli(f"resume={name}", cwd=cwd)
        assert answer.code == 0, answer.err
        assert json.loads((run / "summary.json").read_text())["directory"] == str(run.resolve())
        assert contents(run) == contents(unbroken)
    assert json.loads((unbroken / "summary.json").read_text())["directory"] == str(unbroken.resolve())


@pytest.mark.parametrize("optim", ["sgd", "muon"])
def test_other_optimizers_resume_bitwise(cli: Callable[..., Answer], tmp_path: Path, optim: str) -> None:
    answer = cli(*TINY, f"optim={optim}", "model.hidden=[8,8]", "schedule=one_cycle")
    run = _interrupted(answer.run, tmp_path / "run", 4)
    _train(run, StopAt(-1), resume=True)
    assert (fingerprint(run), records(run)) == (fingerprint(answer.run), records(answer.run))


def test_every_augmentation_resumes_bitwise_in_the_middle_of_an_epoch(
    cli: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = cli(*FULL, *AUGMENTED)
    assert answer.code == 0, answer.err
    run = _interrupted(answer.run, tmp_path / "run", 7)
    config = re.sub(r"(?m)^resident_gb: .*", "resident_gb: 0", (run / "config.yaml").read_text())
    (run / "config.yaml").write_text(config)
    _train(run, StopAt(-1), resume=True)
    assert (fingerprint(run), records(run)) == (fingerprint(answer.run), records(answer.run))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streamed_data_resume_bitwise_with_any_number_of_workers(unbroken: Path, tmp_path: Path, workers: int) -> None:
    run = _interrupted(unbroken, tmp_path / "run", 4)
    config = (run / "config.yaml").read_text()
    config = re.sub(r"(?m)^resident_gb: .*", "resident_gb: 0", config)
    (run / "config.yaml").write_text(re.sub(r"(?m)^workers: .*", f"workers: {workers}", config))
    _train(run, StopAt(-1), resume=True)
    assert (fingerprint(run), records(run)) == (fingerprint(unbroken), records(unbroken))


def test_a_run_killed_before_its_first_save_begins_as_a_new_one(cli: Callable[..., Answer], tmp_path: Path) -> None:
    cwd = tmp_path / "project"
    (cwd / "mine" / "model").mkdir(parents=True)
    (cwd / "mine" / "model" / "own.yaml").write_text("_target_: from_data_pkg.Net\n")
    (cwd / "from_data_pkg.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
        "    def init_from_batch(self, inputs):\n"
        "        self[1].bias.fill_(float(inputs.mean()) + 1)\n"
    )
    answer = cli("--config-dir=mine", "model=own", "trust=[from_data_pkg]", *TINY[:1], *TINY[3:], cwd=cwd)
    assert answer.code == 0, answer.err
    killed = cwd / "killed"
    killed.mkdir()
    shutil.copy(answer.run / "config.yaml", killed)
    assert cli("resume=killed", "trust=[from_data_pkg]", cwd=cwd).code == 0
    assert fingerprint(killed) == fingerprint(answer.run)


def test_a_finished_run_resumes_to_itself(cli: Callable[..., Answer], tiny_run: Answer, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run.run, copy)
    for state in ("done", "kill"):
        if state == "kill":  # between the last save and the summary
            (copy / "summary.json").unlink()
        assert cli(f"resume={copy}").code == 0
        assert contents(copy) == contents(tiny_run.run)
        summary = json.loads((copy / "summary.json").read_text())
        assert summary["train"].keys() == {"loss", "accuracy"} < summary["val"].keys()
        assert all(summary[key] > 0 for key in ("samples_per_s", "data_s", "step_s", "seconds"))
        compared = cli(str(copy), str(tiny_run.run), "metric=val/loss", verb="compare")
        assert compared.code == 0, compared.err


def _wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.005)


def test_sigterm_saves_and_says_how_to_go_on(long_run: Path, cli: Callable[..., Answer], tmp_path: Path) -> None:
    process = start(*LONG, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _wait_for(lambda: list(tmp_path.glob("outputs/*/*/checkpoints/step-000000[1-5]0")), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 75, err
    (run,) = tmp_path.glob("outputs/*/*")
    assert f"bigmodel-train resume={run.relative_to(tmp_path)}" in err.decode()
    assert "Traceback" not in err.decode()
    step = json.loads((run / "summary.json").read_text())["step"]
    assert f"at step {step} of" in err.decode()
    assert next(iter(fingerprint(run))).startswith(f"step-{step:08d}")
    assert cli(f"resume={run}").code == 0
    assert (fingerprint(run), records(run)) == (fingerprint(long_run), records(long_run))


SLOW = """
import time
from pathlib import Path
from torch import nn
class Slow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)
    def forward(self, x):
        Path("slow").touch()
        time.sleep(30)
        return self.head(x.flatten(1))
"""


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow_pkg.py").write_text(SLOW)
    process = launch("~model", "+model={_target_: slow_pkg.Slow}", "trust=[slow_pkg]", "device=cpu", cwd=tmp_path)
    assert until((tmp_path / "slow").exists, process)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert process.exitcode is None  # the step is being finished
    os.kill(process.pid, signal.SIGTERM)
    assert finished(process, 5) == 128 + signal.SIGTERM


def test_a_signal_before_training_leaves_nothing(tmp_path: Path) -> None:
    code = "import os, signal; from bigmodel import cli; cli._run = lambda *_: os.kill(os.getpid(), signal.SIGTERM);"
    done = python("-c", f"{code} cli.train()", cwd=tmp_path)
    assert done.returncode == 75, done.stderr
    assert "SIGTERM" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_closed_terminal_stops_no_run_under_nohup() -> None:
    source = (
        "import os, signal; from bigmodel.runtime.signals import StopRequest\n"
        "stop = StopRequest().install(); stop.defer(); os.kill(os.getpid(), signal.SIGHUP); print(stop())"
    )
    for words, heard in (([], "True"), (["nohup"], "False")):
        said = subprocess.run(
            [*words, sys.executable, "-c", source],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
        )
        assert said.stdout.strip() == heard


@pytest.fixture
def copy(tiny_run: Answer, tmp_path: Path) -> Path:
    """A finished run that may be changed."""
    shutil.copytree(tiny_run.run, tmp_path / "copy")
    return tmp_path / "copy"


def test_epochs_may_grow(cli: Callable[..., Answer], copy: Path) -> None:
    answer = cli(f"resume={copy}", "epochs=3")
    assert answer.code == 0, answer.err
    assert "epochs was 2, is now 3" in answer.out
    assert next(iter(fingerprint(copy))).startswith("step-00000009")
    steps = [(r["step"], r["split"]) for r in records(copy)]
    assert len(steps) == len(set(steps))
    assert steps.count((steps[-1][0], "test")) == 1
    again = cli(f"resume={copy}", "epochs=2")
    assert "epochs" in is_quiet(again, code=2)[0]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["epochs=1"], ["epochs can only increase: was 2, got 1"]),
        (["optim.lr=0.5"], ["optim.lr cannot change from 0.05 to 0.5", "epochs"]),
        (["seed=7"], ["seed cannot change from 0 to 7"]),
        (["model=cnn"], ["model"]),
        (["optim=adam"], ["optim"]),
        (["batch_size=32"], ["batch_size cannot change from 64 to 32"]),
        (["optim.lrr=1"], ["optim.lr?"]),
        (["experiment=smoke"], ["experiment"]),
    ],
    ids=str,
)
def test_what_would_make_it_another_run_is_refused(
    cli: Callable[..., Answer], copy: Path, words: list[str], named: list[str]
) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    text = "\n".join(is_quiet(cli(f"resume={copy}", *words), code=2))
    assert all(name in text for name in named), text
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_what_changes_no_weights_may_change(cli: Callable[..., Answer], copy: Path) -> None:
    answer = cli(f"resume={copy}", "keep=5", "save_every=1steps", "workers=0", "listeners=[csv]", "epochs=3")
    assert answer.code == 0, answer.err
    assert len(list((copy / "checkpoints").glob("step-*"))) == 5


@pytest.mark.parametrize("place", ["", "nowhere", "."])
def test_no_run_there(cli: Callable[..., Answer], place: str) -> None:
    answer = cli(f"resume={place}")
    assert "no run" in is_quiet(answer, code=2)[0]
    assert list(answer.cwd.iterdir()) == []


def test_a_second_writer_is_told_who_writes(cli: Callable[..., Answer], copy: Path) -> None:
    from bigmodel.runs.lock import RunLock

    lock = RunLock(copy)
    try:
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        (line,) = is_quiet(cli(f"resume={copy}", "epochs=3"), code=5)
        assert str(os.getpid()) in line
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    finally:
        lock.release()
    assert cli(f"resume={copy}", "epochs=3").code == 0  # the lock of one that is gone holds nobody up


FORKED = """
import os, sys
from pathlib import Path
from bigmodel.runs.lock import RunLock
lock, (asleep, wake) = RunLock(Path(sys.argv[1])), os.pipe()
child = os.fork()
if child == 0:
    os.close(wake)
    os.read(asleep, 1)
    os._exit(0)
lock.release()
RunLock(Path(sys.argv[1])).release()
os.close(wake)
os.waitpid(child, 0)
"""


def test_a_data_worker_that_outlives_its_parent_holds_no_lock(tmp_path: Path) -> None:
    done = python("-c", FORKED, str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def _damage(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    cli: Callable[..., Answer], tiny_run: Answer, copy: Path
) -> None:
    _damage(copy / "checkpoints" / "step-00000006")
    answer = cli(f"resume={copy}")
    assert answer.code == 0, answer.err
    for text in (answer.out, (copy / "train.log").read_text()):
        assert "model.safetensors" in text
        assert "falling back" in text
    assert (fingerprint(copy), records(copy)) == (fingerprint(tiny_run.run), records(tiny_run.run))


def test_nothing_but_damaged_checkpoints(cli: Callable[..., Answer], copy: Path) -> None:
    for checkpoint in (copy / "checkpoints").glob("step-*"):
        _damage(checkpoint)
    before = records(copy)
    lines = is_quiet(cli(f"resume={copy}"), code=5)
    assert any("step-00000006" in line for line in lines)
    assert records(copy) == before


def test_a_torn_line_of_metrics_is_cut(cli: Callable[..., Answer], tiny_run: Answer, copy: Path) -> None:
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "epo')
    assert cli(f"resume={copy}").code == 0
    assert records(copy) == records(tiny_run.run)


@pytest.mark.parametrize("line", ["[1, 2]", "null", "{}", '{"step": "six", "split": "val"}', "[" * 100_000])
def test_lines_that_no_run_wrote_are_cut(cli: Callable[..., Answer], tiny_run: Answer, copy: Path, line: str) -> None:
    with (copy / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    assert cli(f"resume={copy}").code == 0
    assert records(copy) == records(tiny_run.run)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_names_the_last_good_step(
    cli: Callable[..., Answer], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full")
    monkeypatch.setattr("bigmodel.listeners.log_file.append_to", lambda _: full.open("a", encoding="utf-8"))
    (line,) = is_quiet(cli(f"resume={copy}", "epochs=3"), code=5)
    assert "No space left" in line
    assert "last saved step: 6" in line


def test_a_disk_that_fills_while_the_config_is_written_loses_no_run(
    cli: Callable[..., Answer], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = Path.write_text

    def full(path: Path, text: str, **rest: str) -> int:
        if ".yaml" not in path.name and not text.startswith(("model", "seed")):
            return write_text(path, text, **rest)
        write_text(path, text[: len(text) // 2], **rest)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    answer = cli(f"resume={copy}", "epochs=3")
    monkeypatch.undo()
    if answer.code != 0:  # a way of writing that this test does not reach is fine too
        is_quiet(answer, code=5)
    assert load_config(copy / "config.yaml").values["batch_size"] == 64
    assert cli(f"resume={copy}", "epochs=3").code == 0


ROWS = [(round(number * 37 % 60 / 7, 3), number * 11 % 60, number % 2) for number in range(60)]


@pytest.mark.parametrize(
    ("head", "names", "said"),
    [
        ("k,x,y", "01", 'dataset: numbers was ["x", "k"], is now ["k", "x"]'),
        ("x,k,y", "ba", 'dataset: classes was ["0", "1"], is now ["a", "b"]'),
    ],
)
def test_data_that_means_something_else_is_not_resumed_with(
    cli: Callable[..., Answer], tmp_path: Path, head: str, names: str, said: str
) -> None:
    """The values are the same, so their hash is; more rows, and other values, are told of only."""
    file = tmp_path / "rows.csv"

    def write(head: str, names: str, more: str = "") -> None:
        file.write_text(f"{head}\n" + "".join(f"{x},{k},{names[y]}\n" for x, k, y in ROWS) + more)

    write("x,k,y", "01")
    table = ("dataset=table", f"dataset.train={file}", "dataset.target=y", "model=tabular_mlp", "model.hidden=[4]")
    first = cli(*table, "device=cpu", "epochs=1", "listeners=[]")
    assert first.code == 0, first.err
    write("x,k,y", "01", "3.5,4,1\n")
    assert cli(f"resume={first.run}", "epochs=2").code == 0
    write(head, names)
    lines = is_quiet(cli(f"resume={first.run}", "epochs=3"), code=3)
    assert lines[0] == said
    assert f"init.from={first.run}" in lines[-1]
