"""The documentation is true: each command line of its pages works as it stands, and its tables name what there is."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from bigmodel import errors
from bigmodel.runs.report import files
from bigmodel.sweeps.state.directory import SweepDirectory
from bigmodel.sweeps.state.jobs import JobSpec
from bigmodel.sweeps.state.settings import SweepOptions
from conftest import TINY, call, slow_where
from pages import ENGLISH, INSTALLS, PAGES, ROOT, blocks_of, sessions, text_of
from warm import swept

ALL_LINES = [line for page in ENGLISH for block in blocks_of(page) if block.language == "sh" for line in block.lines]
IN_ORDER = {line for blocks in sessions().values() for block in blocks for line in block.lines}
COMMANDS = list(dict.fromkeys(line for line in ALL_LINES if line not in IN_ORDER))
RUNS = {name for line in COMMANDS for name in re.findall(r"outputs/2[\w-]+/[\w-]+", line)}
SWEEPS = {name for line in COMMANDS for name in re.findall(r"outputs/sweeps/[\w-]+", line)}
VERBS = r"bigmodel-(train|evaluate|predict|export|compare|runs|report|merge|share)\b"
# by test_clusters.py, test_export_elsewhere.py and test_ranks.py
ELSEWHERE = r"ray (start|stop)\b|python docs/run_exported\.py |torchrun "
FOLDERS = {
    "cifar10": "cifar-10-batches-bin",
    "mnist": "mnist",
    "fashion_mnist": "fashion_mnist",
    "tinyshakespeare": "shared/text",
    "etth1": "shared/finance",
    "spoken_digits": "shared/speech/recordings",
    "breastmnist": "shared/medical",
    "esol": "shared/molecules",
    "trec": "shared/text",
    "adult": "shared/fairness",
    "weights": "shared/weights",
}
RECIPES = dict.fromkeys(("cifar10_94", "article", "cifar10_resnet18"), "cifar10")
RECIPES |= {name: name for name in ("etth1", "spoken_digits", "breastmnist", "esol")}
RECIPES |= {"shakespeare_char": "tinyshakespeare", "resnet20_imported": "weights"}
LONGER = re.compile(  # to run or to import
    "experiment=|model=vit|image_folder|fashion_mnist|seeds=3|-m |=auto|-export |-report |epochs=40"
)
NEEDED_PACKAGES = {
    "format=onnx": "onnxruntime",
    "also=onnx": "onnxruntime",
    "model=timm": "timm",
    "hydra/sweeper=optuna": "optuna",
}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@pytest.fixture
def workplace(tmp_path, tiny_run):
    """A directory with what the commands speak of: a trained run and some pictures."""
    for name in SWEEPS:
        _finished_sweep(tmp_path / name, tiny_run.run)
    for name in RUNS:
        shutil.copytree(tiny_run.run, tmp_path / name)
    for label in ("cats", "dogs"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(40):
            Image.new("RGB", (40, 30), (number, 90, 180)).save(tmp_path / "photos" / label / f"{number}.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    (tmp_path / "card.yaml").write_text("license: mit")
    return tmp_path


def _finished_sweep(path, run):
    path.mkdir(parents=True)
    sweep = SweepDirectory(path)
    job = (JobSpec(0, ("seed=1",), "val/accuracy", 2.0), (run / "config.yaml").read_text(encoding="utf-8"))
    sweep.snapshot_configs([job], SweepOptions(1, 1, "continue"), ())
    sweep.lock.release()
    shutil.copytree(run, path / "0")


@pytest.mark.parametrize(
    "line",
    slow_where(
        [line for line in COMMANDS if re.match(rf"{VERBS}|python -m bigmodel ", line) and "n_trials" not in line],
        LONGER.search,
    ),
)
def test_a_command_does_what_it_says(line, workplace, monkeypatch):
    if line.startswith("bigmodel-report"):
        pytest.importorskip("matplotlib")
        monkeypatch.setattr(files, "can_draw", lambda: True)  # which conftest.py has them not do otherwise
    if "my_model" in line and "to=my_model" not in line:
        works("share", [f"run={sorted(RUNS)[0]}", "to=my_model"], workplace)
    words = shlex.split(line.replace("python -m bigmodel ", "bigmodel-"))
    verb, words = words[0].removeprefix("bigmodel-"), words[1:]
    works(verb, words, workplace)


@pytest.mark.slow
def test_a_search_takes_more_trials_when_it_is_resumed(workplace):
    """The line of search.md, with fewer trials."""
    (line,) = (line for line in COMMANDS if "n_trials" in line and "resume=" in line)
    name = re.search(r"resume=(\S+)", line)[1]
    shutil.rmtree(workplace / name)
    search = ("hydra/sweeper=optuna", "optim.lr=interval(0.01,0.1)", "hydra.sweeper.n_trials=1")
    assert swept(*search, *TINY, cwd=workplace)[0] == 0
    (made,) = set(workplace.glob("outputs/sweeps/*")) - {workplace / name for name in SWEEPS}
    made.rename(workplace / name)
    code, said = swept(*shlex.split(line.replace("n_trials=100", "n_trials=2"))[1:], multirun=False, cwd=workplace)
    assert code == 0, said


def works(verb, words, workplace):
    for word, package in NEEDED_PACKAGES.items():
        if word in words and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    if verb == "train":
        words = [*words, *real_data(settings)]
        if "hydra/sweeper" in settings or settings.get("hydra/launcher") in ("slurm", "ray"):
            words = [*words, "dry_run=true"]
        elif ("-m" in words or "seeds" in settings) and not {"resume", "dry_run"} & set(settings):
            words = [*words, *TINY]
        elif not {"-m", "--help"} & set(words) and "resume" not in settings:
            words = [*words, "dry_run=true"]
            if settings and "device" not in settings:  # else `auto` trains each model to see what is fastest
                words = [*words, "device=cpu"]
    if settings.get("device") == "cuda" and not torch.cuda.is_available():
        answer = call(*words, cwd=workplace, verb=verb)
        assert (answer.code, "NVIDIA" in answer.err) == (2, True), answer.err
        words = [word for word in words if word != "device=cuda"] + ["device=cpu"]
    if "-m" in words or "seeds" in settings:
        code, said = swept(*words, multirun=False, cwd=workplace)
        assert code == 0, said
        assert said
        return
    answer = call(*words, cwd=workplace, verb=verb)
    assert answer.code == 0, answer.err
    assert answer.out


def real_data(settings):
    named = (settings.get("dataset") or RECIPES.get(settings.get("experiment", ""), "")).split(",")
    wanted = [name for name in named if name in FOLDERS]
    if not wanted:
        return []
    folder = os.environ.get("BIGMODEL_DATA_DIR")
    for name in wanted:
        if folder is None or not (Path(folder) / FOLDERS[name]).is_dir():
            pytest.skip(f"BIGMODEL_DATA_DIR holds no {name}")
    return [f"data_dir={Path(folder).resolve()}"]


def test_a_wrong_key_would_be_noticed(workplace):
    with pytest.raises(AssertionError, match=r"optim\.lr\?"):
        works("train", ["optim.lrr=0.1"], workplace)


@needs_make
@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_make_knows_the_target_and_the_words_given_to_it(line, workplace):
    planned = subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    last = planned.stdout.strip().splitlines()[-1]
    if "bigmodel-train " in last:
        works("train", shlex.split(last)[1:], workplace)


def test_every_command_is_of_a_kind_that_is_tested():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for line in COMMANDS:
        if line.startswith("pip install "):
            assert set(re.findall(r"\w+", line.partition("[")[2])) <= set(extras)
        else:
            assert INSTALLS.match(line) or re.match(rf"{VERBS}|python -m bigmodel |{ELSEWHERE}", line), line
    assert {"make train", "make test"} <= set(COMMANDS)
    for name in re.findall(r"\(extra `(\w+)`", "".join(map(text_of, PAGES))):
        assert name in extras


@needs_make
def test_make_alone_explains_every_target():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for words in (["make"], ["make", "help"]):
        shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        explained = dict(re.findall(r"^  (\w+) +(\S.*)$", shown, re.MULTILINE))
        assert sorted(explained) == sorted(targets)


@pytest.mark.parametrize(
    "group", ["model", "optim", "schedule", "loss", "task", "dataset", "device", "listeners", "experiment"]
)
def test_the_page_of_models_names_every_choice(group):
    named = set(re.findall(r"`([\w.]+)`", text_of("docs/models.md")))
    missing = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} - named
    assert not missing


def test_the_exit_codes_are_those_of_the_errors():
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text_of("docs/resume-and-checkpoints.md"), re.MULTILINE)}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BigmodelError)
    ]
    assert told == {0, *(kind.exit_code for kind in kinds)}
