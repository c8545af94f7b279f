"""`bigmodel-train dataset=NAME` alone trains: data choose task, model and optimizer, a task its loss and monitor.

Whatever is typed wins, and so do experiments and root files of one's own.
"""

from __future__ import annotations

import os
import re
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import bigmodel
from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.config import Config
from bigmodel.config.instantiate import instantiate
from bigmodel.config.location import conf_directory
from bigmodel.runs.choice_names import choice_name
from conftest import Answer, is_quiet

DATASETS = sorted(path.stem for path in (conf_directory() / "dataset").glob("*.yaml"))
TASKS = sorted(path.stem for path in (conf_directory() / "task").glob("*.yaml"))
REQUIRED = {  # the keys of one's own data that have no default
    "audio_folder": {"root": "sounds"},
    "csv_images": {"file": "pictures.csv"},
    "image_folder": {"root": "pictures"},
    "labelled_text": {"train": "texts.csv"},
    "molecules": {"train": "molecules.csv"},
    "parallel_text": {"train": "pairs.csv"},
    "series": {"file": "series.csv"},
    "table": {"train": "table.csv", "target": "kind"},
    "text": {"path": "text.txt"},
}


def _read(group: str, name: str) -> dict[str, Any]:
    node: dict[str, Any] = yaml.safe_load((conf_directory() / group / f"{name}.yaml").read_text("utf-8"))
    return node


def _composed(*words: str, directories: tuple[Path, ...] = (), name: str = "train") -> Config:
    return compose("train", words, ConfigSource((*directories, conf_directory()), name))


def _choices(config: Config) -> dict[str, str]:
    return {group: choice_name(group, config.values[group]) for group in ("task", "model", "optim")}


def _required(name: str) -> list[str]:
    return [f"dataset.{key}={value}" for key, value in REQUIRED.get(name, {}).items()]


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_names_a_task_and_a_model_that_take_what_it_has(name: str) -> None:
    data = _read("dataset", name)
    assert {"task", "model"} <= data["goes_with"].keys()
    for group, chosen in data["goes_with"].items():
        for choice in chosen if isinstance(chosen, list) else [chosen]:
            text = (conf_directory() / group / f"{choice}.yaml").read_text("utf-8")
            assert {*re.findall(r"\$\{dataset\.(\w+)\}", text)} <= data.keys()


@pytest.mark.parametrize("name", ["image_folder", "csv_images"])
def test_pictures_of_ones_own_get_a_network_that_is_small_at_any_size(name: str) -> None:
    config = _composed(f"dataset={name}", *_required(name), "dataset.input_shape=[3,224,224]", "dataset.num_classes=5")
    model = instantiate("model", config.values["model"])
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000


@pytest.mark.parametrize("name", TASKS)
def test_every_task_brings_its_loss_and_its_monitor(name: str) -> None:
    task = _read("task", name)
    assert task["goes_with"].keys() == {"loss", "monitor"}
    assert (task["goes_with"]["loss"] is None) == ("loss" not in task)


def test_a_data_set_and_its_task_choose_and_say_so() -> None:
    config = _composed("dataset=esol")
    assert _choices(config) == {"task": "regression", "model": "bert", "optim": "adamw"}
    assert config.values["monitor"] == "val/loss"
    assert choice_name("loss", config.values["loss"]) == "mse"
    assert config.notes == (
        "chosen by dataset=esol: task=regression model=bert optim=adamw",
        "chosen by task=regression: loss=mse monitor=val/loss",
    )
    assert "goes_with" not in config.to_yaml()


def test_a_data_set_keeps_its_name_when_a_few_of_its_keys_are_typed() -> None:
    words = ("dataset=trec", "dataset.predicts=masked_token", "dataset.context=30", "dataset.val_fraction=0.2")
    config = _composed(*words, "task=masked_language_modelling", "model=masked_bert")
    assert choice_name("dataset", config.values["dataset"]) == "trec"  # labelled_text has more keys, none of them set


def test_a_task_with_a_loss_of_its_own_leaves_none() -> None:
    config = _composed("dataset=tinyshakespeare")
    assert "loss" not in config.values
    assert config.notes[1] == "chosen by task=language_modelling: loss=null monitor=val/loss"


def test_what_is_typed_wins() -> None:
    config = _composed("dataset=trec", "model=bert", "optim=sgd", "optim.lr=0.1")
    assert _choices(config) == {"task": "classification", "model": "bert", "optim": "sgd"}
    assert config.notes == ()  # the task is the default one
    config = _composed("dataset=esol", "monitor=val/mae", "loss=cross_entropy")
    assert (config.values["monitor"], choice_name("loss", config.values["loss"])) == ("val/mae", "cross_entropy")
    assert config.notes == ("chosen by dataset=esol: task=regression model=bert optim=adamw",)


def test_loss_and_monitor_follow_the_task_that_is_typed() -> None:
    config = _composed("dataset=trec", "task=masked_language_modelling", "model=masked_bert")
    assert "loss" not in config.values
    assert config.values["monitor"] == "val/loss"
    assert config.notes[0] == "chosen by dataset=trec: optim=adamw"


def test_a_plain_run_is_what_it_was_and_says_nothing() -> None:
    for words in ((), ("dataset=cifar10", "task=classification", "loss=mse")):
        config = _composed(*words)
        assert _choices(config) == {"task": "classification", "model": "cnn", "optim": "sgd"}
        assert config.values["monitor"] == "val/accuracy"
        assert config.notes == ()


def test_a_group_that_is_deleted_stays_so(cli: Callable[..., Answer]) -> None:
    (line,) = is_quiet(cli("dataset=trec", "loss=null"), code=2)
    assert line == "task.loss: needs loss, and none is chosen; set loss=..."
    config = _composed(
        "~model",
        "+model={_target_: bigmodel.models.mlp.MLP, input_shape: [1], num_classes: 6, hidden: []}",
        "dataset=trec",
    )
    assert config.values["model"]["_target_"] == "bigmodel.models.mlp.MLP"


def test_an_experiment_has_chosen(tmp_path: Path) -> None:
    assert _composed("experiment=trec_bert").notes == ()
    config = _composed("experiment=trec_bert", "dataset=sst2")
    assert _choices(config)["model"] == "bert"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /dataset: trec\n  - override /model: bert\nmonitor: val/loss\n"
    )
    config = _composed("experiment=mine", directories=(tmp_path,))
    assert _choices(config) == {"task": "classification", "model": "bert", "optim": "adamw"}
    assert config.values["monitor"] == "val/loss"
    assert config.notes == ("chosen by dataset=trec: task=classification optim=adamw",)
    assert _choices(_composed("experiment=mine", "model=gpt", directories=(tmp_path,)))["model"] == "gpt"


def test_a_root_file_of_ones_own_has_chosen(tmp_path: Path) -> None:
    plain = (conf_directory() / "train.yaml").read_text("utf-8")
    (tmp_path / "plain.yaml").write_text(
        plain.replace("- model: cnn", "- model: bert").replace("- dataset: digits", "- dataset: trec")
    )
    config = _composed(directories=(tmp_path,), name="plain")
    assert _choices(config) == {"task": "classification", "model": "bert", "optim": "sgd"}
    config = _composed("experiment=trec", directories=(tmp_path,), name="plain")  # which is typed
    assert _choices(config) == {"task": "classification", "model": "text_cnn", "optim": "adamw"}
    (tmp_path / "based.yaml").write_text(
        "defaults:\n  - train\n  - override dataset: esol\n  - override model: gpt\n  - _self_\nmonitor: val/mae\n"
    )
    config = _composed(directories=(tmp_path,), name="based")
    assert _choices(config) == {"task": "regression", "model": "gpt", "optim": "adamw"}
    assert config.values["monitor"] == "val/mae"
    assert config.notes == (
        "chosen by dataset=esol: task=regression optim=adamw",
        "chosen by task=regression: loss=mse",
    )


def test_data_and_tasks_of_ones_own_choose_too(tmp_path: Path) -> None:
    for group in ("dataset", "task"):
        (tmp_path / group).mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text(
        "goes_with: {task: mine, epochs: 3}\ndefaults: [labelled_text, _self_]\ntrain: mine.csv\n"
    )
    (tmp_path / "task" / "mine.yaml").write_text("goes_with: {monitor: val/loss}\ndefaults: [classification, _self_]\n")
    config = _composed("dataset=mine", directories=(tmp_path,))
    assert _choices(config) == {"task": "classification", "model": "text_cnn", "optim": "adamw"}
    assert (config.values["monitor"], config.values["epochs"]) == ("val/loss", 3)
    assert config.values["dataset"]["train"] == "mine.csv"
    assert config.values["dataset"]["min_count"] == 2
    assert "chosen by dataset=mine: task=mine epochs=3" in config.notes
    assert _composed("dataset=mine", "epochs=4", directories=(tmp_path,)).values["epochs"] == 4


@pytest.mark.parametrize(
    ("group", "text", "says"),
    [
        ("dataset", "goes_with: cnn", "goes_with: must hold choices and keys, as {model: cnn}, got 'cnn'"),
        pytest.param("dataset", "goes_with: {model: no_such}", "no_such", marks=pytest.mark.slow),
        pytest.param("dataset", "goes_with: {modle: cnn}", "modle", marks=pytest.mark.slow),
        ("model", "goes_with: {optim: sgd}", "goes_with: only a dataset or a task may have it, not a model"),
    ],
)
def test_a_wrong_goes_with_is_told(
    cli: Callable[..., Answer], tmp_path: Path, group: str, text: str, says: str
) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(
        f"defaults: [{'digits' if group == 'dataset' else 'cnn'}, _self_]\n{text}\n"
    )
    lines = is_quiet(cli("--config-dir", str(tmp_path), f"{group}=mine", "dry_run=true"), code=2)
    assert any(says in line for line in lines), lines


@pytest.mark.slow
def test_each_job_of_a_sweep_over_data_sets_has_its_own(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    _make_data(tmp_path / "here")
    answer = cli("-m", "dataset=digits,names", "data_dir=.", "epochs=1", "limit_batches=1", "device=cpu")
    assert answer.code == 0, answer.err
    (sweep,) = answer.cwd.glob("outputs/sweeps/*")
    jobs = [yaml.safe_load((sweep / "jobs" / f"{number}.yaml").read_text()) for number in (0, 1)]
    assert [choice_name("model", job["model"]) for job in jobs] == ["cnn", "gpt"]
    assert [job["monitor"] for job in jobs] == ["val/accuracy", "val/loss"]


def test_from_python_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    _make_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["dataset=table", "dataset.train=table.csv", "dataset.target=kind", "device=cpu"]
    bigmodel.train([*words, "epochs=1", "limit_batches=1"])
    said = "chosen by dataset=table: task=classification model=tabular_mlp optim=adamw"
    assert said in capsys.readouterr().out
    (log,) = tmp_path.glob("outputs/*/*/train.log")
    assert said in log.read_text()


# those need open weights, as tests/small_chat.py makes
ALONE = [name for name in DATASETS if name not in ("conversations", "preferences")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_every_data_set_alone_trains(cli: Callable[..., Answer], tmp_path: Path, name: str) -> None:
    (tmp_path / "here").mkdir()
    _make_data(tmp_path / "here")
    kept = os.environ.get("BIGMODEL_DATA_DIR", "data")
    words = [f"dataset={name}", *_required(name), "device=cpu", "epochs=1", "limit_batches=2", "resident_gb=1"]
    answer = cli(*words, *(() if name in REQUIRED else (f"data_dir={kept}",)))
    if answer.code == 3 and name not in REQUIRED:  # there are no such data here: that is what is said
        assert re.search(r"found no .*; get it|found no .*; put it|found no .* in ", answer.err), answer.err
        pytest.skip("needs its data")
    assert answer.code == 0, answer.err
    assert (answer.run / "summary.json").is_file()
    config = yaml.safe_load((answer.run / "config.yaml").read_text())
    for group, choice in _read("dataset", name)["goes_with"].items():
        assert choice_name(group, config[group]) == choice


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALONE if name not in (*REQUIRED, "digits", "iso_names")])
def test_without_its_data_it_says_what_to_get(cli: Callable[..., Answer], tmp_path: Path, name: str) -> None:
    download = ("dataset.download=false",) if "download" in _read("dataset", name) else ()
    (line,) = is_quiet(cli(f"dataset={name}", f"data_dir={tmp_path}", "device=cpu", *download), code=3)
    assert "model" not in line
    assert "found no" in line
    assert not download or "dataset.download=true" in line


def _make_data(folder: Path) -> None:
    """Make small data of one's own of every kind, by the names in REQUIRED."""
    random = np.random.default_rng(0)
    names = ("one", "two")
    tables: Mapping[str, tuple[str, Callable[[int], str]]] = {
        "pictures.csv": ("path,label", lambda row: f"pictures/{names[row % 2]}/{row}.png,{names[row % 2]}"),
        "texts.csv": ("text,label", lambda row: f"a text of {names[row % 2]} things,{names[row % 2]}"),
        "molecules.csv": ("smiles,target", lambda row: f"{'C' * (1 + row % 7)}O,{row % 2}"),
        "pairs.csv": ("source,target", lambda row: f"word {row},mot {row}"),
        "series.csv": ("load,oil", lambda row: f"{np.sin(row / 4):.3f},{np.cos(row / 5):.3f}"),
        "table.csv": (
            "size,color,kind",
            lambda row: f"{row * 0.7:.2f},{'red' if row % 3 else 'blue'},{names[row % 2]}",
        ),
    }
    for name, (header, line) in tables.items():
        rows = range(900 if name == "series.csv" else 60)
        (folder / name).write_text("\n".join([header, *map(line, rows)]) + "\n")
    (folder / "names.txt").write_text("\n".join(f"name{'abcdefgh'[row % 8]}{row}" for row in range(300)))
    (folder / "text.txt").write_text("what is written here is written again and again, letter by letter; " * 60)
    for row in range(60):
        for kind in ("pictures", "sounds"):
            (folder / kind / names[row % 2]).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (70, 66, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / names[row % 2] / f"{row}.png")
        samples = 3000 * np.sin(np.arange(4000) * (0.1 + 0.2 * (row % 2)) + row)
        with wave.open(str(folder / "sounds" / names[row % 2] / f"{row}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", "NONE"))
            file.writeframes(samples.astype("<i2").tobytes())


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("dataset=molecules", "dataset.train=own.csv"), "'target' (dataset.targets); the columns are: smiles, active"),
        (("dataset=labelled_text", "dataset.train=own.csv"), "'label' (dataset.label_column); the columns are"),
    ],
)
def test_a_column_that_is_missing_is_told_with_its_key(
    cli: Callable[..., Answer], tmp_path: Path, words: tuple[str, ...], key: str
) -> None:
    (tmp_path / "own.csv").write_text("smiles,active\nCCO,1\nCCN,0\n", encoding="utf-8")
    (line,) = is_quiet(cli(*words, "device=cpu", cwd=tmp_path), code=3)
    assert f"own.csv:1: needs one column {key}" in line
