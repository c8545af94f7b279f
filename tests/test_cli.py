"""What people type, and what they are told when it is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import bigmodel
from conftest import TINY, Answer, fingerprint, is_quiet, python

MODEL = """
from torch import nn
class Own(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    def forward(self, x):
        return self.body(x)
"""

MISTAKES = {
    "key": (["optim.lrr=0.1"], ["optim.lrr", "optim.lr?"]),
    "leaf without its group": (["lr=0.1"], ["lr:", "optim.lr?"]),
    "top key": (["epoch=3"], ["epoch:", "epochs?"]),
    "key forced in": (["++optim.lrr=1"], ["optim.lrr", "optim.lr?"]),
    "choice": (["model=resnt18"], ["resnt18", "resnet18?"]),
    "choice far from all": (["model=zzz"], ["zzz", "choices:", "cnn, ", "resnet18"]),
    "choice in a list": (["listeners=[csv,consle]"], ["consle", "console?"]),
    "two choices": (["model=[cnn,mlp]", "model.channels=8"], ["model", "one choice"]),
    "experiment": (["experiment=smoek"], ["smoek", "smoke?"]),
    "group forced in": (["+modle=cnn"], ["modle", "model?"]),
    "no choice": (["model=null"], ["model"]),
    "type": (["optim.lr=fast"], ["optim.lr", "number", "fast"]),
    "whole number": (["seed=1.5"], ["seed", "whole number", "1.5"]),
    "truth value": (["dry_run=maybe"], ["dry_run", "true or false"]),
    "list item": (["model=mlp", "model.hidden=[16,a]"], ["model.hidden", "whole number"]),
    "unit": (["log_every=5"], ["log_every", "5"]),
    "unit's name": (["log_every=5miles"], ["log_every", "500steps"]),
    "range": (["epochs=-1"], ["epochs", "at least 0", "-1"]),
    "range of a fraction": (["schedule.warmup=1"], ["schedule.warmup", "below 1"]),
    "range of a count": (["limit_batches=0"], ["limit_batches", "at least 1"]),
    "nan": (["optim.lr=nan"], ["optim.lr", "finite", "nan"]),
    "inf": (["epochs=inf"], ["epochs", "finite", "inf"]),
    "beyond a float": ([*TINY, "optim.lr=1" + "0" * 400], ["optim.lr"]),
    "beyond any run": ([*TINY, "epochs=1e308"], ["epochs"]),
    "unicode value": (["model=résnet"], ["model", "résnet"]),
    "unicode key": (["schlüssel=1"], ["schlüssel"]),
    "control codes": (["model='\x1b[31mred'"], ["model"]),
    "megabyte of value": (["optim.lr=" + "x" * 1_000_000], ["optim.lr", "xxx"]),
    "megabyte of key": (["x" * 1_000_000 + "=1"], ["xxx"]),
    "grammar": (["optim.lr=[1"], ["optim.lr=[1"]),
    "no sign": (["train"], ["train"]),
    "empty word": ([""], [""]),
    "several values": (["optim.lr=0.1,0.01"], ["optim.lr", "-m"]),
    "missing value": (["optim.lr=???"], ["optim.lr", "needs a value"]),
    "missing node": (["~optim"], ["optim"]),
    "interpolation": (["optim.lr=${nowhere}"], ["nowhere"]),
    "flag": (["--frobnicate"], ["--frobnicate"]),
    "config directory": (["--config-dir", "/nowhere"], ["--config-dir", "/nowhere"]),
    "config directory not given": ([*TINY, "--config-dir"], ["--config-dir"]),
    "config name": (["--config-name", "nowhere"], ["nowhere"]),
    "target": (["model._target_=os.system"], ["model._target_", "os.system", "not trusted"]),
    "target of another group": (["model._target_=bigmodel.optim.sgd.sgd"], ["model._target_"]),
    "target that is not there": (["model._target_=bigmodel.models.mlp.Nope"], ["model._target_", "Nope"]),
    "class count": (["dataset.num_classes=7"], ["num_classes", "10", "7"]),
    "class count of the model": ([*TINY, "model.num_classes=3"], ["num_classes", "3"]),
    "shape": (["dataset.input_shape=[1,9,9]"], ["input_shape", "1x8x8"]),
    "monitor": (["monitor=val/foo"], ["monitor", "val/loss, val/accuracy"]),
    "precision": (["device=cpu", "device.precision=tf32"], ["device.precision", "tf32", "fp32"]),
    "batch larger than the data": (["batch_size=100000"], ["batch_size", "100000", "1294"]),
    "patience without validation": (["patience=2", "dataset.val_fraction=0"], ["patience", "val_fraction"]),
    "optimizer's own rule": (["optim.momentum=0"], ["optim", "momentum"]),
    "no run": (["resume=/nowhere"], ["resume", "/nowhere"]),
    "flag for Hydra": (["--cfg", "job", "optim.lrr=1"], ["optim.lrr"]),
}


@pytest.mark.parametrize(("words", "named"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_plain_line_and_leaves_nothing(
    cli: Callable[..., Answer], words: list[str], named: list[str]
) -> None:
    answer = cli(*words)
    lines = is_quiet(answer, code=2)
    assert len(lines) == 1
    assert all(name in lines[0] for name in named), lines
    assert len(lines[0]) < 500
    assert lines[0].isprintable()
    assert list(answer.cwd.iterdir()) == []


def test_three_mistakes_are_three_lines(cli: Callable[..., Answer]) -> None:
    lines = is_quiet(cli("optim.lrr=0.1", "model=resnt18", "epochs=-1"), code=2)
    assert len(lines) == 3
    for name in ("optim.lr?", "resnet18?", "epochs"):
        assert sum(name in line for line in lines) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_where_there_is_none_says_what_there_is(cli: Callable[..., Answer]) -> None:
    answer = cli("device=cuda", *TINY[1:])
    (line,) = is_quiet(answer, code=2)
    assert "CPU" in line
    assert "device=cpu" in line
    assert list(answer.cwd.iterdir()) == []


_IMPORTED = """
import sys
from bigmodel.cli import _run_guarded
code = _run_guarded("train", sys.argv[1:])
print("LOADED", code, *(name for name in ("torch", "hydra", "numpy") if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("word", "code", "allowed"),
    [
        ("--help", 0, []),
        ("--help model=gpt", 0, []),
        ("--help modle", 2, []),
        ("--version", 0, []),
        ("optim.lrr=1", 2, ["hydra"]),
        ("optim.lr=-1", 2, ["hydra"]),
    ],
)
def test_what_yaml_alone_shows_imports_no_torch(tmp_path: Path, word: str, code: int, allowed: list[str]) -> None:
    done = python("-c", _IMPORTED, *word.split(), cwd=tmp_path)
    assert done.stdout.splitlines()[-1].split() == ["LOADED", str(code), *allowed], done.stderr


def test_a_run_that_compiles_nothing_imports_no_compiler(tmp_path: Path) -> None:
    script = _IMPORTED.replace('"torch", "hydra", "numpy"', '"torch._dynamo", "torch._inductor", "sympy"')
    done = python("-c", script, *TINY, "listeners=[]", cwd=tmp_path)
    assert done.stdout.splitlines()[-1].split() == ["LOADED", "0"], done.stderr  # it would take two seconds


def test_version(cli: Callable[..., Answer]) -> None:
    assert cli("--version").out.split() == ["bigmodel-train", bigmodel.__version__]


def test_python_m_bigmodel_is_the_same_thing(tmp_path: Path) -> None:
    done = python("-m", "bigmodel", "train", "optim.lrr=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean optim.lr?" in done.stderr
    wrong = python("-m", "bigmodel", "trian", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "choices: train" in wrong.stderr


def _overlay(directory: Path) -> None:
    (directory / "model").mkdir(parents=True)
    (directory / "optim").mkdir()
    (directory / "model" / "narrow.yaml").write_text(
        "# A narrow one.\n_target_: bigmodel.models.mlp.MLP\nhidden: [3]\n"
        "input_shape: ${dataset.input_shape}\nnum_classes: ${dataset.num_classes}\n"
    )
    (directory / "optim" / "sgd.yaml").write_text("_target_: bigmodel.optim.sgd.sgd\nlr: 0.123\n")


def test_a_config_dir_adds_and_shadows_choices(cli: Callable[..., Answer], tmp_path: Path) -> None:
    _overlay(tmp_path / "mine")
    answer = cli("--config-dir", str(tmp_path / "mine"), "model=narrow", "limit_batches=1", "epochs=1", "device=cpu")
    assert answer.code == 0, answer.err
    stored = OmegaConf.load(answer.run / "config.yaml")
    assert stored.model.hidden == [3]
    assert stored.optim.lr == 0.123


@pytest.mark.parametrize("words", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]], ids=str)
def test_cfg_job_shows_the_composed_config_overlay_included(
    cli: Callable[..., Answer], tmp_path: Path, words: list[str]
) -> None:
    _overlay(tmp_path / "mine")
    answer = cli(*(word.format(tmp_path / "mine") for word in words), "--cfg", "job", "epochs=7")
    assert answer.code == 0, answer.err
    shown = OmegaConf.create(answer.out)
    assert (shown.epochs, shown.optim.lr) == (7, 0.123)
    assert list(answer.cwd.iterdir()) == []


def test_a_model_of_ones_own_once_trusted(cli: Callable[..., Answer], tmp_path: Path) -> None:
    cwd = tmp_path / "project"
    cwd.mkdir()
    (cwd / "ownpkg_cli.py").write_text(MODEL)
    words = ("~model", "+model={_target_: ownpkg_cli.Own, width: 5}", "limit_batches=1", "epochs=1", "device=cpu")
    refused = is_quiet(cli(*words, cwd=cwd), code=2)
    assert any("trust=[ownpkg_cli]" in line for line in refused)
    assert not (cwd / "outputs").exists()
    answer = cli(*words, "trust=[ownpkg_cli]", cwd=cwd)
    assert answer.code == 0, answer.err
    assert (answer.run / "summary.json").is_file()


def test_trust_never_comes_from_yaml(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "evil.yaml").write_text("_target_: os.system\ncommand: touch owned\ntrust: [os]\n")
    answer = cli("--config-dir", str(tmp_path / "mine"), "model=evil")
    assert "not trusted" in is_quiet(answer, code=2)[0]
    assert list(answer.cwd.iterdir()) == []


def test_a_saved_config_runs_again_to_the_same_weights(cli: Callable[..., Answer], tiny_run: Answer) -> None:
    again = cli("--config-path", str(tiny_run.run), "--config-name", "config")
    assert again.code == 0, again.err
    assert fingerprint(again.run) == fingerprint(tiny_run.run)
    assert (again.run / "config.yaml").read_text() == (tiny_run.run / "config.yaml").read_text()


@pytest.mark.parametrize("place", ["outputs", "outputs/deep"])
def test_an_output_place_that_is_a_file(cli: Callable[..., Answer], tmp_path: Path, place: str) -> None:
    cwd = tmp_path / "here"
    cwd.mkdir()
    (cwd / "outputs").write_text("a file")
    answer = cli(*TINY, f"output_dir={place}")
    (line,) = is_quiet(answer, code=5)
    assert "outputs" in line
    assert [path.name for path in cwd.iterdir()] == ["outputs"]


def test_a_path_needs_no_quoting(cli: Callable[..., Answer], tmp_path: Path) -> None:
    place = tmp_path / "a place (with=odd) 'signs' & ümlaut"
    answer = cli(*TINY, f"output_dir={place}")
    assert answer.code == 0, answer.err
    assert len(list(place.glob("*/*/summary.json"))) == 1


def test_a_secret_from_the_environment_is_written_nowhere(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-value")
    answer = cli(*TINY, "data_dir='${oc.env:MY_TOKEN}'")
    assert answer.code == 0, answer.err
    assert "${oc.env:MY_TOKEN}" in (answer.run / "config.yaml").read_text()
    files = [path for path in answer.run.rglob("*") if path.is_file()]
    leaks = [path.name for path in files if b"s3cr3t-value" in path.read_bytes()]
    assert leaks == []


def test_v_shows_where_a_failure_came_from(tmp_path: Path) -> None:
    done = python("-m", "bigmodel", "train", "-v", "optim.lrr=1", cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert "did you mean optim.lr?" in done.stderr


def test_the_command_line_is_recorded_without_its_secrets(cli: Callable[..., Answer], tiny_run: Answer) -> None:
    from bigmodel.redaction import redact_arguments

    assert redact_arguments(["a", "x.api_key=1", "y.Token=2", "lr=3"]) == ["a", "x.api_key=***", "y.Token=***", "lr=3"]
    assert redact_arguments(["dataset.tokenizer=bytes", "my_tokens=1"]) == ["dataset.tokenizer=bytes", "my_tokens=***"]
    assert json.loads((tiny_run.run / "environment.json").read_text())["command"][:2] == ["bigmodel-train", TINY[0]]


def test_an_unwritable_copy_is_no_run(cli: Callable[..., Answer], tiny_run: Answer, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run.run, copy)
    (copy / "config.yaml").write_text("[1, 2]")
    (line,) = is_quiet(cli(f"resume={copy}"), code=2)
    assert "config.yaml" in line
