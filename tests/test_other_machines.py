"""Sweeps on other machines, without any: what is refused, what is kept of each start, and what Slurm is told and asked.

Slurm's commands are stand-ins here. `test_clusters.py` has the engines themselves.
"""

from __future__ import annotations

import _thread
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from bigmodel.errors import ConfigError
from bigmodel.sweeps.engines.job_context import JobContext
from bigmodel.sweeps.engines.options import validate_options
from bigmodel.sweeps.engines.ray import _run
from bigmodel.sweeps.engines.remote_job import RemoteJob, StartRecords
from bigmodel.sweeps.state.directory import SweepDirectory
from bigmodel.sweeps.state.jobs import JobSpec
from bigmodel.sweeps.state.settings import resolve_parallelism
from conftest import TINY, Answer, is_quiet, slow_where


@pytest.mark.parametrize(
    ("engine", "module"), slow_where([("slurm", "submitit"), ("ray", "ray")], lambda case: case[0] == "ray")
)
def test_an_extra_that_is_missing_is_named_and_nothing_is_made(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, engine: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    answer = cli("-m", *TINY, f"hydra/launcher={engine}", "seed=1,2")
    (line,) = is_quiet(answer, code=2)
    assert f"pip install 'bigmodel-train[{engine}]'" in line
    assert list(answer.cwd.iterdir()) == []


@pytest.mark.parametrize(
    ("engine", "key", "value", "named"),
    [
        ("slurm", "executor", "pbs", "slurm, local"),
        ("slurm", "timeout_min", 0, "at least 1"),
        ("slurm", "timeout_min", "soon", "whole number"),
        ("slurm", "cpus_per_task", 1.5, "whole number"),
        ("slurm", "gpus_per_node", True, "whole number"),
        ("slurm", "mem_gb", 0, "above 0"),
        ("slurm", "partition", "gpu\ntouch here", "one word"),
        ("ray", "num_gpus", -1, "at least 0"),
        ("ray", "num_cpus", None, "above 0"),
        ("ray", "address", "10.0.0.1:6379", "RAY_ADDRESS"),
        ("ray", "partition", "gpu", "no such option"),
        ("dask", "jobs", 1, "bigmodel, slurm, ray"),
    ],
)
def test_an_option_that_is_wrong_is_named(engine: str, key: str, value: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as raised:
        validate_options(engine, {key: value})
    assert "\n" not in str(raised.value)


def test_options_that_are_right_join_the_defaults() -> None:
    given = {"partition": "gpu,long", "mem_gb": 0.5, "timeout_min": 90, "qos": None}
    assert {**validate_options("slurm", {}), **given} == validate_options("slurm", given)
    assert validate_options("ray", {"num_gpus": 0.5})["num_gpus"] == 0.5


def test_other_machines_are_handed_all_jobs_and_a_job_its_cores() -> None:
    options = validate_options("slurm", {"cpus_per_task": 6})
    found = resolve_parallelism("auto", "continue", {"cpu"}, 500, 0, "slurm", options)
    assert (found.jobs, found.threads, found.options) == (500, 6, options)
    assert resolve_parallelism(9, "continue", {"cpu"}, 500, 0, "ray", validate_options("ray", {})).jobs == 9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "it" / "jobs").mkdir(parents=True)
    return tmp_path / "it"


def _context(path: Path) -> JobContext:
    return JobContext(path.name, cwd=str(path.parent))


def test_a_job_that_is_killed_leaves_word_and_an_old_start_does_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def killed(context: object, number: int) -> subprocess.Popen[bytes]:
        made.append(number)
        return subprocess.Popen(["sh", "-c", "kill -9 $$"])

    monkeypatch.setattr("bigmodel.sweeps.engines.remote_job._start_process", killed)
    starts = StartRecords(path)
    starts.begin(3, "old")
    starts.begin(3, "new", id="7")
    RemoteJob(_context(path), 3, "old")()
    assert made == []
    RemoteJob(_context(path), 3, "new")()
    assert (starts.code(3, "new"), starts.code(3, "old"), made) == (-9, None, [3])


def test_a_job_is_told_once_to_stop_however_its_cluster_was_started(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = [threading.Timer(after, _thread.interrupt_main) for after in (0.1, 0.3)]  # as Ray does it
    counts = "n=0; trap 'n=$((n+1)); sleep 0.3; exit $n' TERM; echo; while :; do sleep 0.05; done"

    def counting(context: object, number: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sh", "-c", counts], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()  # it listens
        for timer in timers:
            timer.start()
        return process

    monkeypatch.setattr("bigmodel.sweeps.engines.remote_job._start_process", counting)
    StartRecords(path).begin(0, "token")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in what a shell starts in the background
    try:
        _run(RemoteJob(_context(path), 0, "token"))
        for timer in timers:
            timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert StartRecords(path).code(0, "token") == 1


SBATCH = """#!/bin/sh
[ -e refuses ] && { echo 'sbatch: error: invalid partition' >&2; exit 1; }
echo x >> submitted; cp "$1" last.sh; echo "Submitted batch job $(wc -l < submitted)"
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with stand-ins for Slurm's commands, which is the current one too."""
    pytest.importorskip("submitit", reason="submitit is an optional extra: pip install 'bigmodel-train[slurm]'")
    from submitit.slurm.slurm import SlurmJob

    scripts = {"sbatch": SBATCH, "sacct": "#!/bin/sh\ncat states\n", "scancel": '#!/bin/sh\necho "$@" >> cancelled\n'}
    for name, text in {**scripts, "srun": "#!/bin/sh\n"}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("submitit.core.core.PicklingExecutor._throttle", lambda self: None)
    monkeypatch.setattr("bigmodel.sweeps.engines.slurm._Slurm.file_delay_s", 0.0)
    monkeypatch.setattr("bigmodel.sweeps.engines.slurm._Slurm._INTERVALS_S", (0.0, 0.0))
    SlurmJob.watcher.__init__(delay_s=600)
    yield tmp_path
    SlurmJob.watcher.__init__(delay_s=600)


def _says(**states: str) -> None:
    lines = [f"{name[1:]}|{word}|node1" for name, word in states.items()]
    Path("states").write_text("\n".join(["JobID|State|NodeList", *lines]))


def test_slurm_is_asked_once_for_each_job_and_finds_it_again(path: Path, cluster: Path) -> None:
    from bigmodel.sweeps.engines.slurm import SlurmEngine

    _says(_1="RUNNING", _2="PENDING", _3="RUNNING")
    options = validate_options("slurm", {"partition": "gpu", "gpus_per_node": 1, "timeout_min": 30, "mem_gb": 4})
    jobs = SlurmEngine(path, options)
    jobs.configure(JobContext("it"))
    for number in (0, 1, 2):
        jobs.start(number)
    script = Path("last.sh").read_text()
    for word in ("partition=gpu", "gpus-per-node=1", "time=30", "mem=4GB", "cpus-per-task=1"):
        assert f"#SBATCH --{word}\n" in script
    starts = StartRecords(path)
    starts.end(0, starts.last(0)["token"], 0)
    starts.end(2, starts.last(2)["token"], 75)  # preempted, and Slurm may queue it again
    assert (jobs.poll(0.01), jobs.running_jobs) == ([(0, 0)], {1, 2})

    again = SlurmEngine(path, options)  # the first has been killed
    again.configure(JobContext("it"))
    for number in (1, 2):
        again.start(number)
    assert (starts.last(1)["id"], starts.last(2)["id"]) == ("2", "4")  # the other had saved and ended
    _says(_2="OUT_OF_MEMORY", _4="PREEMPTED")
    assert again.poll(0.01) == [(1, -signal.SIGKILL), (2, 75)]
    token = starts.last(1)["token"]
    again.start(1)  # as `on_failure=retry` has it
    assert (starts.last(1)["id"], starts.last(1)["token"] != token) == ("5", True)
    _says(_5="CANCELLED by 1000")
    again.signal(signal.SIGTERM, again.running_jobs)
    assert again.poll(0.01) == [(1, 75)]
    assert Path("cancelled").read_text() == "--state=PENDING 5\n--state=RUNNING --signal=TERM 5\n"


@pytest.mark.parametrize(
    ("words", "asked", "gpus"),
    [
        (("device.count=4", "device=cuda"), {}, 4),
        (("device.count=4", "device=auto"), {"gpus_per_node": 1}, 4),
        (("device.count=4", "device=cpu"), {}, None),
    ],
)
def test_slurm_is_asked_for_the_cores_and_gpus_of_all_ranks(
    words: tuple[str, ...], asked: dict[str, int], gpus: int | None, path: Path, cluster: Path
) -> None:
    from bigmodel.sweeps.engines.slurm import SlurmEngine

    _says()
    (path / "jobs" / "0.yaml").write_text(compose("train", words, ConfigSource((conf_directory(),), "train")).to_yaml())
    jobs = SlurmEngine(path, validate_options("slurm", {"cpus_per_task": 2, **asked}))
    jobs.configure(JobContext("it"))
    jobs.start(0)
    script = Path("last.sh").read_text()
    assert "#SBATCH --cpus-per-task=8\n" in script
    assert (f"#SBATCH --gpus-per-node={gpus}\n" if gpus else "gpus-per-node") in script or gpus is None
    assert gpus is not None or "gpus-per-node" not in script


def test_what_slurm_refuses_is_told(path: Path, cluster: Path) -> None:
    from bigmodel.sweeps.engines.slurm import SlurmEngine

    Path("refuses").touch()
    jobs = SlurmEngine(path, validate_options("slurm", {}))
    jobs.configure(JobContext("it"))
    with pytest.raises(ConfigError, match=r"invalid partition.*resume=.*it hydra\.launcher\.KEY=VALUE"):
        jobs.start(0)
    (cluster / "bin" / "srun").unlink()
    with pytest.raises(ConfigError, match=r"no srun.*executor=local"):
        SlurmEngine(path, validate_options("slurm", {}))


def test_a_sweep_goes_on_with_its_engine_and_other_options(cli: Callable[..., Answer], tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.mkdir()
    sweep = SweepDirectory(path)
    options = validate_options("slurm", {"executor": "local", "timeout_min": 9})
    sweep.snapshot_configs(
        [(JobSpec(0, (), "val/loss", 1.0), "")], resolve_parallelism("auto", "stop", set(), 1, 0, "slurm", options), ()
    )
    sweep.lock.release()
    for words, named in (
        (["hydra.launcher.executor=slurm"], "executor"),
        (["hydra.launcher.timeout_min=none"], "timeout_min"),
        (["hydra.launcher.gpus=1"], "no such option of slurm"),
        (["hydra/launcher=ray"], "hydra.launcher.*"),
    ):
        (line,) = is_quiet(cli("-m", f"resume={path}", *words), code=2)
        assert named in line
    known = json.loads((path / "sweep.json").read_text())["settings"]
    assert (known["engine"], known["options"]["timeout_min"], known["on_failure"]) == ("slurm", 9, "stop")
