"""What a sweep shows, freezes, allows to change, and does after a failure; and how jobs share GPUs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from bigmodel.config import composition as compose
from bigmodel.config.location import conf_directory
from bigmodel.config.saved import load_config
from bigmodel.errors import StorageError
from bigmodel.runtime.gpus import Gpu, acquire, acquire_idle, parse_nvidia_smi
from bigmodel.sweeps.state.settings import resolve_parallelism
from conftest import TINY, Answer, is_quiet, slow_where
from forks import finished, until
from warm import only_sweep, sweep, swept, table

OWN = """
import json, os, time
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self, width: int = 4, fails: bool = False) -> None:
        super().__init__()
        began, gpu = time.time(), os.environ.get("CUDA_VISIBLE_DEVICES")
        if fails and not Path("healed").exists():
            Path("healed").touch()
            raise OSError("on purpose")
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        if gpu:
            time.sleep(0.1)
            Path("used", str(os.getpid())).write_text(json.dumps([gpu, began, time.time()]))
    def forward(self, x):
        if self.training and Path("slow").exists():
            time.sleep(0.2)
        return self.body(x)
"""
JOB = ("--config-dir=mine", "model=own", "trust=[own_pkg]", "limit_batches=2", "epochs=1", "listeners=[]")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    cwd = tmp_path / "project"
    (cwd / "mine" / "model").mkdir(parents=True)
    (cwd / "own_pkg.py").write_text(OWN)
    (cwd / "mine" / "model" / "own.yaml").write_text("_target_: own_pkg.Net\nwidth: 4\nfails: false\n")
    return cwd


def test_a_dry_run_lists_the_jobs_and_makes_nothing(cli: Callable[..., Answer]) -> None:
    answer = cli("-m", *TINY, "dry_run=true", "optim.lr=0.1,0.01", "seed=3")
    assert answer.code == 0, answer.err
    head, *rows = answer.out.splitlines()
    assert head.startswith("2 jobs")
    assert [row.split() for row in rows] == [["0", "optim.lr=0.1"], ["1", "optim.lr=0.01"]]
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.parametrize("dry_run", slow_where(["true", "false"], "false".__eq__))
@pytest.mark.parametrize(
    ("words", "told"),
    slow_where(
        [
            (["optim.lr=0.1,abc"], ["job 1: optim.lr: must be "]),
            (["optim.lr=abc,0.1", "seed=1,2"], ["jobs 0, 1: optim.lr: must be "]),
            (["epochs=-1,1", "model=mlp,cnn"], ["jobs 0, 1: epochs: must be "]),
            (["optim.lr=x,y", "seed=1,2,-3"], ["jobs 0, 1, 2: optim.lr", "jobs 2, 5: seed", "jobs 3, 4, 5: optim.lr"]),
            (["model=glob([m*p,l*])"], ["model=linear: model.num_numeric: needs dataset.num_numeric"]),
            (
                ["model=glob([m*p,tab*,d*])", "seed=1,2"],
                [
                    "jobs 2, 3 (model=dlinear): model.window",
                    "jobs 6, 7 (model=tabular_mlp): model.num_numeric",
                ],
            ),
        ],
        lambda case: len(case[1]) == 1 and case[0] not in (["optim.lr=0.1,abc"], ["model=glob([m*p,l*])"]),
    ),
)
def test_the_config_of_every_job_is_checked(
    cli: Callable[..., Answer], words: list[str], told: list[str], dry_run: str
) -> None:
    answer = cli("-m", *words, f"dry_run={dry_run}")
    lines = is_quiet(answer, code=2)
    assert len(lines) == len(told), lines
    assert all(line.startswith(begin) for line, begin in zip(lines, told, strict=True)), lines
    assert answer.out == ""
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.slow
def test_a_dry_run_of_many_jobs_says_how_many_configs_it_checked(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigmodel.sweeps.hydra_task._CHECK_S", 1e-9)
    answer = cli("-m", "dry_run=true", "optim.lr=0.1,0.2,abc")
    assert answer.code == 0
    assert "the configs of 1 of 3 jobs were checked" in answer.out


def test_jobs_without_a_loss_of_their_own(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "rhyme.txt").write_text("one for sorrow, two for joy\n" * 40)
    words = ("dataset=text", "dataset.path=rhyme.txt", "task=language_modelling", "loss=null", "monitor=val/loss")
    answer = cli("-m", *words, "model=gpt", "dry_run=true", "optim.lr=0.1,0.01", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[:2] == ["chosen by dataset=text: optim=adamw", "2 jobs; nothing was started"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["jobs=2"], ["jobs", "-m"]),
        (["on_failure=stop"], ["on_failure", "-m"]),
        (["-m", "jobs=0"], ["jobs", "auto", "0"]),
        (["-m", "jobs=many"], ["jobs", "auto", "many"]),
        (["-m", "on_failure=explode"], ["on_failure", "explode", "continue, stop, retry"]),
        (["-m", *TINY, "hydra.launcher.jobs=many"], ["jobs", "auto", "many"]),
        (["-m", "hydra/launcher=nope"], ["launcher", "nope"]),
        (["-m", "resume=/nowhere"], ["resume", "/nowhere", "outputs/sweeps/"]),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(
    cli: Callable[..., Answer], words: list[str], named: list[str]
) -> None:
    answer = cli(*words)
    (line,) = is_quiet(answer, code=2)
    assert all(name in line for name in named), line
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.slow
def test_what_is_queued_is_frozen(project: Path, cli: Callable[..., Answer]) -> None:
    (project / "slow").touch()
    once = ("epochs=20", "save_every=20epoch", "evaluate_every=20epoch")
    process = sweep(*JOB, "device=cpu", "jobs=1", *once, "seed=1,2,3", cwd=project)
    assert until(lambda: list(project.glob("outputs/sweeps/*/0/config.yaml")), process)
    (project / "mine" / "model" / "own.yaml").write_text("_target_: own_pkg.Net\nwidth: 9\nfails: false\n")
    os.kill(process.pid, signal.SIGINT)
    assert finished(process) == 75
    (project / "slow").unlink()
    directory = only_sweep(project)
    where = f"resume={directory.relative_to(project)}"

    for words, named in ((["seed=4"], "seed=4"), ([], "trust=[own_pkg]")):
        (line,) = is_quiet(cli("-m", where, *words, cwd=project), code=2)
        assert named in line
    (line,) = is_quiet(cli(where, cwd=project), code=2)
    assert "-m" in line
    shown = cli("-m", where, "dry_run=true", cwd=project)
    assert [row[2] for row in table(shown.out)] == ["interrupted", "queued", "queued"]

    code, said = swept(where, "trust=[own_pkg]", "jobs=2", cwd=project)
    assert code == 0, said
    assert [row[:3] for row in table(said)] == [[str(n), f"seed={n + 1}", "done"] for n in range(3)]
    for run in range(3):
        assert "width: 4" in (directory / str(run) / "config.yaml").read_text()
    assert "resumes at step" in (directory / "0" / "train.log").read_text()
    shown = cli("-m", where, cwd=project)
    assert shown.code == 0
    assert table(shown.out) == table(said)


@pytest.mark.parametrize(
    ("on_failure", "states"),
    slow_where([("stop", ["failed", "queued"]), ("retry", ["done", "done"])], lambda case: case[0] == "stop"),
)
def test_what_follows_a_failure(project: Path, on_failure: str, states: list[str]) -> None:
    words = ("device=cpu", "jobs=1", f"on_failure={on_failure}", "model.fails=true", "seed=1,2")
    code, said = swept(*JOB, *words, cwd=project)
    assert [row[2].split()[0] for row in table(said)] == states, said
    assert code == (0 if on_failure == "retry" else 1)


@pytest.mark.slow
def test_a_sweeper_may_ask_in_batches(project: Path) -> None:
    words = ("device=cpu", "hydra.sweeper.max_batch_size=1", "hydra.sweep.dir=here", "seed=1,2")
    code, said = swept(*JOB, *words, cwd=project)
    assert code == 0, said
    assert [row[:3] for row in table(said)] == [["0", "seed=1", "done"], ["1", "seed=2", "done"]]
    code, said = swept(*JOB, "device=cpu", "hydra.sweep.dir=here", "seed=1,2", cwd=project)
    assert (code, "-m resume=here" in said) == (2, True), said


@pytest.mark.slow
def test_a_terminal_gets_one_table_and_files_no_control_codes(project: Path) -> None:
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    process = sweep(
        *(*JOB, "device=cpu", "epochs=40", "save_every=40epoch", "seed=1,2"),
        cwd=project,
        environment={"TERM": "xterm"},
        output=Path(os.ttyname(theirs)),
    )
    shown, deadline = b"", time.monotonic() + 60
    while True:
        ended = process.exitcode is not None
        with contextlib.suppress(BlockingIOError):
            while part := os.read(ours, 65536):
                shown += part
        if ended:
            break
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)
    assert process.exitcode == 0, shown
    assert b"\x1b[" in shown
    assert "running" in shown.decode()
    assert [row[2] for row in table(shown.decode().replace("\r", ""))] == ["done", "done"]
    for file in only_sweep(project).rglob("*.*"):
        if file.suffix in (".txt", ".log", ".json", ".jsonl", ".yaml"):
            assert "\x1b" not in file.read_text()


@pytest.mark.slow
def test_two_sweeps_share_the_gpus_of_a_machine(project: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-a, 500, 0'\necho '1, GPU-b, 3, 0'\n")
    smi.chmod(0o755)
    (project / "used").mkdir()
    environment = {
        "PATH": f"{smi.parent}:{os.environ['PATH']}",
        "BIGMODEL_GPU_LOCKS": str(tmp_path / "locks"),
        "CUDA_VISIBLE_DEVICES": "0,GPU-b",
    }
    processes = [sweep(*JOB, "device=auto", "seed=1,2,3", cwd=project, environment=environment) for _ in range(2)]
    assert [finished(process) for process in processes] == [0, 0], (project / "said").read_text()
    assert "2 at a time" in (project / "said").read_text()
    used: dict[str, list[tuple[float, float]]] = {}
    for file in (project / "used").iterdir():
        gpu, began, ended = json.loads(file.read_text())
        used.setdefault(gpu, []).append((began, ended))
    assert set(used) == {"GPU-a", "GPU-b"}
    assert sum(map(len, used.values())) == 6
    for times in used.values():
        ordered = sorted(times)
        assert all(before[1] <= after[0] for before, after in pairwise(ordered))


@pytest.mark.slow
def test_jobs_of_several_ranks_have_a_gpu_for_each(project: Path, tmp_path: Path) -> None:
    """Three GPUs, and two sweeps of jobs that take two: one at a time, and none waits for ever."""
    (tmp_path / "bin").mkdir()
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-a, 3, 0'\necho '1, GPU-b, 3, 0'\necho '2, GPU-c, 3, 0'\n")
    smi.chmod(0o755)
    (project / "used").mkdir()
    environment = {"PATH": f"{smi.parent}:{os.environ['PATH']}", "BIGMODEL_GPU_LOCKS": str(tmp_path / "locks")}
    words = (*JOB, "device=auto", "device.threads=1", "device.count=2", "seed=1,2")
    processes = [sweep(*words, cwd=project, environment=environment) for _ in range(2)]
    assert [finished(process) for process in processes] == [0, 0], (project / "said").read_text()
    times = []
    for file in (project / "used").iterdir():
        gpus, began, ended = json.loads(file.read_text())
        assert len(set(gpus.split(","))) == 2
        times.append((began, ended, gpus))
    assert len(times) == 8  # of each rank of each job
    for one, other in combinations(times, 2):
        is_one_job = one[2] == other[2]
        assert is_one_job or one[1] <= other[0] or other[1] <= one[0]


def test_several_gpus_are_collected_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGMODEL_GPU_LOCKS", str(tmp_path))
    gpus = [Gpu("GPU-a", 2.0), Gpu("GPU-b", 1.0), Gpu("GPU-c", 0.0)]
    assert acquire(gpus, 2) == [gpus[2], gpus[1]]
    assert acquire_idle(gpus) == [gpus[0]]
    collecting = os.open(tmp_path / "turn", os.O_RDONLY)
    fcntl.flock(collecting, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody collects any more


def test_gpus_are_those_that_the_environment_allows() -> None:
    smi = "0, GPU-a, 500, 7\n1, GPU-b, [N/A], 0\n"
    a, b = Gpu("GPU-a", 500.0, 7.0), Gpu("GPU-b", 0.0)
    assert parse_nvidia_smi(smi, None) == [a, b]
    assert parse_nvidia_smi(smi, "1,0") == [b, a]
    assert parse_nvidia_smi(smi, "GPU-b") == [b]
    assert parse_nvidia_smi(smi, "MIG-x") == [Gpu("MIG-x", 0.0)]
    assert parse_nvidia_smi(smi, "") == parse_nvidia_smi("", "0") == parse_nvidia_smi("", None) == []


def test_locks_lie_only_where_nobody_can_bend_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    monkeypatch.setenv("BIGMODEL_GPU_LOCKS", str(tmp_path / "link"))
    with pytest.raises(StorageError, match="link"):
        acquire([Gpu("GPU-a", 0.0)])
    monkeypatch.setenv("BIGMODEL_GPU_LOCKS", str(tmp_path / "target"))
    (tmp_path / "target" / "GPU-a").symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError, match="GPU-a"):
        acquire([Gpu("GPU-a", 0.0)])
    assert not (tmp_path / "secret").exists()


def test_locks_can_be_taken_by_every_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGMODEL_GPU_LOCKS", str(tmp_path / "locks"))
    before = os.umask(0o077)
    try:
        acquire([Gpu("GPU-a", 0.0)])
    finally:
        os.umask(before)
    assert (tmp_path / "locks").stat().st_mode & 0o1777 == 0o1777
    assert (tmp_path / "locks" / "GPU-a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("jobs", "kinds", "wanted", "gpus", "ranks", "expected"),
    [
        ("auto", {"cpu"}, 9, 4, 1, (8, 1)),
        ("auto", {"auto"}, 9, 0, 1, (8, 1)),
        ("auto", {"auto"}, 9, 4, 1, (4, 2)),
        ("auto", {"cpu"}, 3, 0, 1, (3, 2)),
        (2, {"cpu"}, 9, 0, 1, (2, 4)),
        (20, {"cpu"}, 30, 0, 1, (20, 1)),
        ("auto", {"cpu"}, 9, 4, 2, (4, 2)),
        ("auto", {"cuda"}, 9, 4, 2, (2, 4)),
        ("auto", {"cuda"}, 9, 4, 3, (1, 8)),
        ("auto", {"cuda"}, 9, 4, 8, (1, 8)),
        (3, {"cuda"}, 9, 4, 2, (3, 2)),
    ],
)
def test_jobs_and_threads(jobs, kinds, wanted, gpus, ranks, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigmodel.sweeps.state.settings._cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    found = resolve_parallelism(jobs, "continue", kinds, wanted, gpus, ranks=ranks)
    assert (found.jobs, found.threads) == expected


def test_jobs_whose_data_tells_their_sizes_can_be_frozen_and_read_again(tmp_path: Path) -> None:
    words = ["dataset=tox21", "task=multi_label", "loss=null", "model=bert", "monitor=val/auc"]
    source = compose.ConfigSource((conf_directory(),), "train")
    (tmp_path / "0.yaml").write_text(compose.compose("train", words, source).to_job_yaml(), encoding="utf-8")
    again = load_config(tmp_path / "0.yaml").with_values({"dataset.vocab_size": 7, "dataset.num_classes": 2})
    assert (again.values["model"]["vocab_size"], again.values["model"]["num_classes"]) == (7, 2)


@pytest.mark.slow
def test_a_sweep_of_the_engine_that_is_gone_goes_on(tmp_path: Path) -> None:
    """`hydra/launcher=vectorized` trained several jobs in one process, and noted which ones go together."""
    code, said = swept(*TINY, "seed=1,2", cwd=tmp_path)
    assert code == 0, said
    path = only_sweep(tmp_path)
    known = json.loads((path / "sweep.json").read_text())
    known["settings"]["engine"] = "vectorized"
    known["jobs"] = [job | {"make": "0123456789abcdef"} for job in known["jobs"]]
    (path / "sweep.json").write_text(json.dumps(known))
    shutil.rmtree(path / "0")
    code, said = swept(f"resume={path}", cwd=tmp_path)
    assert code == 0, said
    assert [row[2] for row in table(said)] == ["done"] * 2
