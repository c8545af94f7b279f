"""YAML of one's own: read when it is used, refused by file and line; Hydra's own keys in it are honored or refused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bigmodel.config.composition import ConfigSource, compose, compose_with_hydra
from bigmodel.config.location import conf_directory
from bigmodel.config.saved import load_config
from bigmodel.errors import ConfigError
from conftest import Answer, is_quiet, only_run, python, slow_where
from made_runs import made_run

GLOBAL = "# @package _global_\n"
BROKEN = {  # text of an experiment, and what is said of it after the file's name
    "a tab": (f"{GLOBAL}epochs: 1\n\tseed: 2\n", ", line 3, column 1: is not YAML: .*use spaces"),
    "a key twice": (
        f"{GLOBAL}epochs: 1\nseed: 2\nepochs: 2\n",
        ", line 4, column 1: the key 'epochs' stands there twice",
    ),
    "a key twice inside": (
        f"{GLOBAL}optim:\n  lr: 1\n  lr: 2\n",
        ", line 4, column 3: the key 'lr' stands there twice",
    ),
    "nothing": ("", ", line 1: is empty; begin an experiment with the line '# @package _global_'"),
    "comments": ("# my experiment\n", ", line 1: is empty; begin an experiment"),
    "no header": ("epochs: 1\n", ", line 1: would set keys of 'experiment', .*# @package _global_"),
    "a list": (f"{GLOBAL}- epochs: 1\n", ": must hold keys, as 'epochs: 3', not a list"),
    "a text": (f"{GLOBAL}hello\n", ": must hold keys, as 'epochs: 3', not 'hello'"),
    "an open list": (f"{GLOBAL}a: [1, 2\nb: 1\n", ", line 3, column 2: is not YAML"),
    "an odd value": (f"{GLOBAL}profile: !!bool abc\n", ": cannot be read as a config: KeyError"),
    "other bytes": (f"{GLOBAL}data_dir: \udce9\n", ": cannot be read as a config: 'utf-8' codec"),
    "an odd key": (f"{GLOBAL}? [a]\n: 1\n", ", line 2, column 3: is not YAML: found unhashable key"),
    "an object": (f"{GLOBAL}a: !!python/name:os.system\n", ": must not create a Python object"),
    "odd header": ("# @package a b\nepochs: 1\n", ": Too many components"),
    "a number to base 8": (
        f"{GLOBAL}epochs: 010\n",
        ", line 2, column 9: the number 010 would be read as 8; write that",
    ),
    "a number to base 60": (f"{GLOBAL}seed: 1:30\n", ", line 2, column 7: the number 1:30 would be read as 90"),
    "a rate to base 60": (f"{GLOBAL}optim: {{lr: 1:30.5}}\n", ", line 2, column 13: the number 1:30.5 would be"),
    "an empty group": (f'{GLOBAL}defaults:\n  - "": cnn\n', ": defaults: an entry is a group and its choice"),
    "a group that is no word": (f"{GLOBAL}defaults:\n  - true: cnn\n", ": defaults: .* got {True: 'cnn'}"),
    "override of nothing": (f'{GLOBAL}defaults:\n  - "override /": cnn\n', ": defaults: .* got {'override /': 'cnn'}"),
    "a choice that is no word": (f"{GLOBAL}defaults:\n  - override /model: 1\n", ": defaults: .* 'model: cnn'"),
    "a choice without override": (
        f"{GLOBAL}defaults:\n  - _self_\n  - model: mlp\n",
        ", line 4: defaults: 'model' chooses nothing in an experiment; write 'override /model: mlp'",
    ),
    "an optional one": (f"{GLOBAL}defaults:\n  - optional /optim: adamw\n", ", line 3: .* 'override /optim: adamw'"),
    "a relative override": (f"{GLOBAL}defaults: [{{override task: ctc}}]\n", ": defaults: 'override task' chooses"),
    "a launcher without override": (
        f"{GLOBAL}defaults:\n  - hydra/launcher: ray\n",
        ", line 3: .* /hydra/launcher: ray'",
    ),
    "another search path": (f"{GLOBAL}hydra: {{searchpath: [/tmp]}}\n", ": hydra.searchpath: has no effect here"),
}
SOUND = {
    "a late header": f"# What it is for.\n\n{GLOBAL}epochs: 7\n",
    "a byte order mark": f"\ufeff{GLOBAL}epochs: 7\n",
    "numbers as Hydra reads them": f"{GLOBAL}epochs: 7e0\noptim: {{lr: 1e-3}}\n",
    "a zero and a date": f"{GLOBAL}epochs: 7\nseed: 0\noptim: {{lr: 0.05}}\ndata_dir: 2024-01-01\n",
    "such numbers in quotes": f"{GLOBAL}epochs: 7\ndata_dir: '010'\n",
    "a value with quotes": f'{GLOBAL}epochs: 7\ndata_dir: "a: b"\n',
}


def _source(directory: Path) -> ConfigSource:
    (directory / "model").mkdir()
    (directory / "model" / "unused.yaml").write_text("_target_: x\n\tnot: [YAML")  # nobody asks for it
    os.mkfifo(directory / "model" / "pipe.yaml")
    (directory / "experiment").mkdir()
    return ConfigSource((directory, conf_directory()), "train")


def _experiment(directory: Path, text: str) -> Path:
    file = directory / "experiment" / "own.yaml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    return file


@pytest.mark.parametrize(("text", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_mistake_in_an_experiment_names_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    source = _source(tmp_path)
    file = _experiment(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^{file}{says}") as refused:
        compose("train", ["experiment=own"], source)
    assert len(refused.value.lines) == 1


@pytest.mark.parametrize("chosen", ["own", "other"])
def test_files_that_choose_each_other(tmp_path: Path, chosen: str) -> None:
    source = _source(tmp_path)
    _experiment(tmp_path, f"{GLOBAL}defaults:\n  - {chosen}\n")
    (tmp_path / "experiment" / "other.yaml").write_text(f"{GLOBAL}defaults:\n  - own\n")
    with pytest.raises(ConfigError, match=f"^{tmp_path}/experiment/o.*: defaults: this file chooses itself"):
        compose("train", ["experiment=own"], source)


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND.keys())
def test_what_is_sound_is_read(tmp_path: Path, text: str) -> None:
    source = _source(tmp_path)
    _experiment(tmp_path, text)
    assert compose("train", ["experiment=own"], source).values["epochs"] == 7


@pytest.mark.parametrize("group", ["model", "optim", "dataset"])
@pytest.mark.parametrize("text", ["_target_: x\n\ta: 1\n", "a: 1\na: 2\n", "- 1\n"])
def test_a_mistake_in_any_other_file(tmp_path: Path, group: str, text: str) -> None:
    source = _source(tmp_path)
    file = tmp_path / group / "own.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"^{file}[:,]"):
        compose("train", [f"{group}=own"], source)
    with pytest.raises(ConfigError, match=f"^{file}[:,]"):  # as the primary one
        compose("train", [], ConfigSource((file.parent, conf_directory()), "own"))
    with pytest.raises(ConfigError, match=f"^{file}[:,]"):  # as a run's
        load_config(file)


def test_a_choice_without_a_target_is_refused(tmp_path: Path) -> None:
    source = _source(tmp_path)
    (tmp_path / "model" / "own.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"^model._target_: missing"):
        compose("train", ["model=own"], source)


REFUSED = [
    ("hydra: {run: {dir: x}}", "hydra.run.dir: .*output_dir=DIR", "both"),
    ("hydra: {output_subdir: x}", "hydra.output_subdir: ", "both"),
    ("hydra: {job: {chdir: true}}", "hydra.job.chdir: ", "both"),
    ("hydra: {job: {name: x}}", "hydra.job.name: ", "both"),
    ("hydra: {job: {env_set: {A: b}}}", "hydra.job.env_set: .*NAME=value", "both"),
    ("hydra: {verbose: true}", "hydra.verbose: .*-v", "both"),
    ("hydra: {mode: MULTIRUN}", "hydra.mode: .*-m", "both"),
    ("hydra: {callbacks: {x: {_target_: os.system, command: ls}}}", "hydra.callbacks: .*would call", "both"),
    ("hydra: {job_logging: {handlers: {x: {(): os.system}}}}", "hydra.job_logging: ", "both"),
    ("hydra: {sweep: {subdir: x}}", "hydra.sweep.subdir: ", "both"),
    ("defaults: [override /hydra/job_logging: none]", "hydra/job_logging: ", "both"),
    ("defaults: [override /hydra/sweeper: optuna]", "hydra/sweeper: applies to sweeps only; add -m", "run"),
    ("defaults: [override /hydra/launcher: ray]", "hydra/launcher: applies to sweeps only; add -m", "run"),
    ("hydra: {launcher: {jobs: 2}}", "hydra.launcher: applies to sweeps only; add -m", "run"),
    ("hydra: {sweep: {dir: x}}", "hydra.sweep.dir: applies to sweeps only; add -m", "run"),
]


@pytest.mark.parametrize(
    ("text", "says", "where"), slow_where(REFUSED, lambda case: not re.search(r"\{run:|callbacks|launcher", case[0]))
)
def test_hydras_keys_in_an_experiment_are_refused_or_honored(tmp_path: Path, text: str, says: str, where: str) -> None:
    source = _source(tmp_path)
    _experiment(tmp_path, f"{GLOBAL}{text}\nepochs: 1\n")
    with pytest.raises(ConfigError, match=f"^{says}"):
        compose("train", ["experiment=own"], source)
    if where == "both":
        with pytest.raises(ConfigError, match=f"^{says}"):
            compose("train", ["experiment=own"], source, multirun=True)
    else:
        _, hydra = compose_with_hydra("train", ["experiment=own"], source, multirun=True)
        found = (hydra["runtime"]["choices"], hydra["launcher"].get("jobs"), hydra["sweep"]["dir"])
        assert "optuna" in str(found) or "ray" in str(found) or 2 in found or "x" in found


@pytest.mark.slow
@pytest.mark.parametrize(
    "word",
    [
        *("hydra.run.dir=x", "hydra.job.name=x", "hydra.verbose=true", "hydra.output_subdir=x", "+hydra.callbacks.x=1"),
        *("hydra/job_logging=none", "hydra/help=default", "hydra.searchpath=[/tmp]", "~hydra", "hydra.nope=1"),
        *("hydra.sweep.dir=x", "hydra/launcher=basic", "hydra.sweeper.params.x=1", "hydra.mode=MULTIRUN"),
    ],
)
def test_hydras_keys_on_the_command_line_of_a_run(cli: Callable[..., Answer], word: str) -> None:
    (line,) = is_quiet(cli(word, "seed=1"), code=2)
    assert line.startswith(word.lstrip("+~").partition("=")[0])


def _listed(cli: Callable[..., Answer], words: Sequence[str], tmp_path: Path) -> list[str]:
    answer = cli("-m", f"--config-dir={tmp_path}", "dry_run=true", *words)
    assert answer.code == 0, answer.err
    return answer.out.splitlines()


@pytest.mark.slow
def test_an_experiment_chooses_its_sweep(cli: Callable[..., Answer], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "experiment").mkdir()
    space = 'params: {optim.lr: "tag(log,interval(1e-3,1))"}'
    chosen = f"{GLOBAL}defaults:\n  - override /hydra/sweeper: optuna\n"
    _experiment(tmp_path, f"{chosen}hydra:\n  sweeper:\n    n_trials: 3\n    {space}\n")
    assert _listed(cli, ["experiment=own"], tmp_path)[0].startswith("3 trials by tpe")
    assert _listed(cli, ["experiment=own", "hydra.sweeper.n_trials=5"], tmp_path)[0].startswith("5 trials by tpe")
    words = ("-m", f"--config-dir={tmp_path}", "experiment=own", "hydra/sweeper=bigmodel", "seed=1,2")
    (line,) = is_quiet(cli(*words), code=2)
    assert "n_trials: belongs to a search; add hydra/sweeper=optuna" in line


@pytest.mark.slow
@pytest.mark.parametrize("order", ["own,smoke", "smoke,own"])
def test_experiments_of_one_sweep_that_ask_for_different_ones(
    cli: Callable[..., Answer], tmp_path: Path, order: str
) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "experiment").mkdir()
    _experiment(tmp_path, f"{GLOBAL}defaults:\n  - override /hydra/sweeper: optuna\n")
    words = ("-m", f"--config-dir={tmp_path}", f"experiment={order}", "dry_run=true")
    (line,) = is_quiet(cli(*words), code=2)
    assert "hydra.sweeper: experiment=" in line
    assert "ask for different sweeps" in line


@pytest.mark.slow
def test_an_experiment_says_where_its_sweep_goes(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    _experiment(tmp_path, f"{GLOBAL}hydra: {{sweep: {{dir: there}}}}\n")
    quick = ("model=mlp", "limit_batches=1", "epochs=1", "device=cpu", "jobs=1")
    answer = cli("-m", f"--config-dir={tmp_path}", "experiment=own", "seed=1", *quick)
    assert answer.code == 0, answer.err
    assert (answer.cwd / "there" / "sweep.json").is_file()
    assert not (answer.cwd / "outputs").exists()


GONE = """
import os, sys
from bigmodel.cli import _run_guarded
os.mkdir("gone"); os.chdir("gone"); os.rmdir(os.getcwd())
sys.exit(_run_guarded(sys.argv[1], sys.argv[2:]))
"""


def test_a_reader_in_a_removed_working_directory(tmp_path: Path) -> None:
    made_run(tmp_path / "outputs" / "2026-11-24" / "10-00-00-aaaa", 0.95)
    done = python("-c", GONE, "runs", f"output_dir={tmp_path / 'outputs'}", cwd=tmp_path)
    assert (done.returncode, "aaaa" in done.stdout) == (0, True), done.stderr
    done = python("-c", GONE, "runs", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("the working directory was removed, so paths must be absolute")


@pytest.mark.slow
def test_a_removed_working_directory(tmp_path: Path) -> None:
    quick = ("model=mlp", "limit_batches=1", "epochs=1", "device=cpu")
    done = python("-c", GONE, "train", f"output_dir={tmp_path / 'outputs'}", *quick, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    done = python("-c", GONE, "train", f"resume={run}", "epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = python("-c", GONE, "train", *quick, cwd=tmp_path)
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert line.endswith("the working directory was removed, so paths must be absolute")


@pytest.mark.slow
def test_a_sweep_keeps_what_the_environment_says_to_itself(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_SECRET", "s3cr3t-v4lue")
    quick = ("model=mlp", "limit_batches=1", "epochs=1", "device=cpu", "jobs=1")
    answer = cli("-m", "data_dir=${oc.env:MY_SECRET}/x", "seed=1,2", *quick)
    assert answer.code == 0, answer.err
    (sweep,) = answer.cwd.glob("outputs/sweeps/*")
    for file in answer.cwd.rglob("*"):
        assert not file.is_file() or b"s3cr3t" not in file.read_bytes()
    (sweep / "1" / "summary.json").unlink()
    (line,) = is_quiet_in(cli("-m", f"resume={sweep}"), 2)
    assert "trust=[env:MY_SECRET]" in line
    answer = cli("-m", f"resume={sweep}", "trust=[env:MY_SECRET]")
    assert answer.code == 0, answer.err


def is_quiet_in(answer: Answer, code: int) -> list[str]:
    """The error lines of a failure in a directory that holds something already."""
    assert answer.code == code, answer.err
    assert "internal error" not in answer.err
    return [line.removeprefix("error: ") for line in answer.err.splitlines()]
