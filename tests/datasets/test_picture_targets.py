"""Lists of pictures with a number or several labels each, from the list to the prediction."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bigmodel.datasets.images.augment import ImageAugment
from bigmodel.datasets.images.csv_images import csv_images
from bigmodel.datasets.images.dataset import ImageDataset
from bigmodel.datasets.images.picture_targets import reject_measurements
from bigmodel.errors import ConfigError, DataError
from conftest import Answer, call

SETTINGS: dict[str, Any] = {
    "input_shape": (1, 8, 8),
    "mean": [0.5],
    "std": [0.5],
    "val_fraction": 0.2,
    "augment": ImageAugment(),
    "image_column": "path",
}
WORDS = (
    *("dataset=csv_images", "dataset.file=list.csv", "dataset.input_shape=[1,8,8]", "dataset.mean=[0.5]"),
    *("dataset.std=[0.5]", "model=mlp", "model.hidden=[8]", "device=cpu", "batch_size=8", "epochs=8"),
)
NUMBER = ("dataset.label_column=age", "dataset.target_type=number", "task=regression", "loss=mse", "monitor=val/loss")
LABELS = ("dataset.label_column=[bright,dim]", "dataset.target_type=labels", "task=multi_label", "loss=null")


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty grey pictures; how bright they are says all the columns."""
    here = tmp_path_factory.mktemp("lists")
    (here / "pictures").mkdir()
    random = np.random.default_rng(0)
    with (here / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "age", "bright", "dim", "tags", "kind", "part"])
        for n in range(60):
            level = random.random()
            Image.fromarray((random.random((8, 8)) * 40 + level * 200).astype(np.uint8)).save(
                here / f"pictures/{n}.png"
            )
            tags = "|".join(["bright"] * (level > 0.5) + ["mid"] * (0.3 < level < 0.7))
            unknown = "" if n % 7 == 0 else int(level < 0.6)
            part = "Validation" if n % 6 == 0 else "training"
            rows.writerow(
                [f"pictures/{n}.png", f"{20 + 10 * level:.3f}", int(level > 0.5), unknown, tags, "aab"[n % 3], part]
            )
    return here


def opened(lists: Path, **settings: Any) -> ImageDataset:
    return csv_images(str(lists / "list.csv"), **{**SETTINGS, **settings})


def test_numbers_that_look_measured_ask_for_regression(lists: Path) -> None:
    with pytest.raises(ConfigError, match=r"'age' has 60 different numbers .* task=regression, or"):
        opened(lists, label_column="age", target_type="auto")
    assert len(opened(lists, label_column="age", target_type="class").classes) == 60
    assert opened(lists, label_column="bright", target_type="auto").classes == ["0", "1"]
    assert opened(lists, label_column="kind", target_type="auto").classes == ["a", "b"]


@pytest.mark.parametrize("spelling", ["{:.2f} mm", "{:.1f}%", "${:.2f}", "{:,}", ".{:.0f}5"])
def test_measurements_in_any_spelling_ask_for_regression(spelling: str) -> None:
    values = [spelling.format(n * 1000.5) for n in range(1, 40)]
    for cells in (values, [value.replace(".", ",") for value in values], [*values, "NA"]):
        with pytest.raises(ConfigError, match=r"different numbers .* as if measured; set dataset.target_type=number"):
            reject_measurements("size", cells)
    reject_measurements("kind", [f"class_{n}.5" for n in range(40)])


def test_a_number_is_standardised_by_what_is_trained_on(lists: Path) -> None:
    data = opened(lists, label_column="age", target_type="number", split_column="part")
    assert data.sizes == {"train": 50, "val": 10}
    train = data.sources["train"]().labels_N
    assert (train.shape, train.dtype) == ((50, 1), torch.float32)
    assert abs(train.mean().item()) < 1e-5
    assert data.properties | {"target_std": None} == {
        "num_classes": None,
        "outputs": 1,
        "target_std": None,
        "labels": None,
        "input_shape": [1, 8, 8],
    }


def test_columns_that_are_not_used_are_told(lists: Path) -> None:
    chosen = opened(lists, label_column="kind", split_column="part")
    assert "columns not used: age, bright, dim, tags" in chosen.notes
    missed = opened(lists, label_column="kind")
    assert "warning: column 'part' names splits and is not used; set dataset.split_column=part" in missed.notes


def test_labels_come_from_columns_or_from_one_cell(lists: Path) -> None:
    columns = opened(lists, label_column=["bright", "dim"], target_type="labels")
    targets = columns.sources["train"]().labels_N
    assert targets.isnan().sum(0).tolist() == [0, 9]
    assert columns.properties["labels"] == ["bright", "dim"]
    cells = opened(lists, label_column="tags", target_type="labels", label_separator="|")
    assert cells.properties["labels"] == ["bright", "mid"]
    assert torch.equal(cells.sources["train"]().labels_N[:, 0], targets[:, 0])
    assert any(note.startswith("labels in training: bright ") for note in cells.notes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"label_column": "tags", "target_type": "labels"},
            "dataset.label_separator: needs the text between two labels",
        ),
        ({"label_column": ["bright", "dim"]}, "2 columns hold several labels; set dataset.target_type=labels"),
        ({"label_column": ["age", "bright"], "target_type": "number"}, "2 columns hold several labels"),
        (
            {"label_column": ["kind", "dim"], "target_type": "labels"},
            "list.csv:2: column 'kind': 'a' is not 1, 0 or empty",
        ),
        ({"label_column": "kind", "target_type": "number"}, "list.csv:2: column 'kind': 'a' is not a finite number"),
        (
            {"label_column": "kind", "label_separator": "|"},
            "applies to several labels only; set dataset.target_type=labels",
        ),
    ],
)
def test_columns_that_do_not_go_with_the_target_are_refused(lists: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, DataError), match=words):
        opened(lists, **settings)


def test_a_list_with_broken_pictures_is_refused_or_shortened(lists: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 3).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    (tmp_path / "list.csv").write_text("path,kind\na.png,x\nb.png,y\nc.png,y\na.png,y\n")
    with pytest.raises(DataError, match=r"list.csv:4: column 'path': no file"):
        opened(tmp_path, label_column="kind")
    data = opened(tmp_path, label_column="kind", broken="skip", val_fraction=0.0)
    assert (data.sizes, data.classes) == ({"train": 2}, ["x", "y"])
    assert "warning: 2 rows with broken pictures skipped" in data.notes
    assert any("list.csv:3: " in note for note in data.notes)


def test_classes_that_differ_in_spelling_are_told(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 3).save(tmp_path / "a.png")
    rows = [f"a.png,{label}" for label in ("yes", "YES", "no", "no\u00a0", "1", "1.0")]
    (tmp_path / "list.csv").write_text("\n".join(["path,kind", *rows]) + "\n", encoding="utf-8")
    (line,) = [note for note in opened(tmp_path, label_column="kind").notes if "separate classes" in note]
    assert all(pair in line for pair in ("'1' and '1.0'", "'YES' and 'yes'", r"'no' and 'no\xa0'"))


def test_labels_that_look_the_same_are_told_apart(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 3).save(tmp_path / "a.png")
    cells = ("caf\u00e9", "cafe\u0301|red", "red|dog", "dog", "caf\u00e9", "red")
    rows = "".join(f"a.png,{cell}\n" for cell in cells)
    (tmp_path / "list.csv").write_text(f"path,tags\n{rows}", encoding="utf-8")
    data = opened(tmp_path, label_column="tags", target_type="labels", label_separator="|")
    assert "warning: these are separate classes: 'cafe\\u0301' and 'caf\u00e9'" in data.notes


@pytest.fixture(scope="module")
def told(lists: Path) -> dict[str, Answer]:
    runs = {"number": NUMBER, "labels": (*LABELS, "monitor=val/auc")}
    answers = {name: call(*WORDS, *words, f"output_dir={name}", cwd=lists) for name, words in runs.items()}
    assert {answer.code for answer in answers.values()} == {0}, answers
    return answers


def run_of(lists: Path, name: str) -> Path:
    (found,) = lists.glob(f"{name}/????-??-??/*")
    return found


@pytest.mark.slow
def test_a_number_is_trained_evaluated_predicted_and_exported(told: dict[str, Answer], lists: Path) -> None:
    run = run_of(lists, "number")
    assert "model.num_classes=1: one output for each number or label, the data has no classes" in told["number"].out
    evaluated = call(f"run={run}", "split=val", "device=cpu", "format=json", cwd=lists, verb="evaluate")
    assert json.loads(evaluated.out)["rmse_units"] < 2, evaluated.err
    said = call(f"run={run}", "input=pictures", "device=cpu", "format=json", cwd=lists, verb="predict")
    with (lists / "list.csv").open() as file:
        ages = {row["path"]: float(row["age"]) for row in csv.DictReader(file)}
    errors = [abs(json.loads(line)["value"] - ages[json.loads(line)["input"]]) for line in said.out.splitlines()]
    assert len(errors) == 60
    assert sum(errors) / 60 < 1.5
    table = call(f"run={run}", "input=pictures/0.png", "device=cpu", cwd=lists, verb="predict")
    assert table.out.split()[:2] == ["file", "age"]
    exported = call(f"run={run}", "format=safetensors", "output=m.safetensors", cwd=lists, verb="export")
    assert exported.code == 0, exported.err
    card = json.loads((lists / "m.safetensors.json").read_text())
    assert (card["target"], card["model"]["num_classes"]) == ("age", 1)
    assert 24 < card["target_mean"] < 26
    again = call(f"resume={run}", "epochs=9", cwd=lists)
    assert again.code == 0, again.err


@pytest.mark.slow
def test_labels_are_trained_evaluated_and_predicted(told: dict[str, Answer], lists: Path) -> None:
    run = run_of(lists, "labels")
    evaluated = call(f"run={run}", "split=train", "device=cpu", "format=json", cwd=lists, verb="evaluate")
    assert json.loads(evaluated.out)["auc"] > 0.9, evaluated.err
    said = call(f"run={run}", "input=pictures/0.png", "device=cpu", "format=json", cwd=lists, verb="predict")
    assert set(json.loads(said.out)["labels"]) == {"bright", "dim"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (NUMBER[:2], "classification needs two classes or more, not None; for numbers set task=regression"),
        (("dataset.label_column=kind", *LABELS[2:], "monitor=val/auc"), "labels: this data has no labels"),
        ((*NUMBER, "dataset.augment.mixup=0.2"), "dataset.augment.mixup: the data has no second class to mix with"),
        ((*NUMBER, "sampler=balanced"), "sampler: balanced needs one class for each sample"),
    ],
)
def test_tasks_that_do_not_go_with_the_target_are_refused(words: tuple[str, ...], said: str, lists: Path) -> None:
    answer = call(*WORDS, *words, "dry_run=true", cwd=lists)
    assert (answer.code, said in answer.err) == (2, True), answer.err + answer.out


def test_the_task_brings_the_loss_and_the_kind_of_target(lists: Path) -> None:
    answer = call(*WORDS, *NUMBER[:1], "task=regression", "dry_run=true", cwd=lists)
    assert answer.code == 0, answer.err
    assert "one number (age, " in answer.out
    refused = call(*WORDS, "dataset.label_column=kind", "task=regression", "dry_run=true", cwd=lists)
    assert (refused.code, "column 'kind': 'a' is not a finite number" in refused.err) == (3, True), refused.err


@pytest.mark.slow
def test_weights_of_classes_are_written_down_and_evaluated_with(lists: Path) -> None:
    words = ("dataset.label_column=kind", "loss.weight=balanced", "sampler=balanced", "output_dir=weighed", "epochs=2")
    answer = call(*WORDS, *words, "dataset.augment.random_resized_crop=0.5", cwd=lists)
    assert answer.code == 0, answer.err
    run = run_of(lists, "weighed")
    (line,) = [line for line in answer.out.splitlines() if line.startswith("loss.weight=balanced: ")]
    weights = json.loads(line.partition(": ")[2])
    assert weights[1] > weights[0]
    assert sum(weights) > 2
    assert call(f"run={run}", "split=val", "device=cpu", cwd=lists, verb="evaluate").code == 0
    unbroken = call(*WORDS, *words, "dataset.augment.random_resized_crop=0.5", "output_dir=once", "epochs=3", cwd=lists)
    assert unbroken.code == 0, unbroken.err
    first = max((run_of(lists, "once") / "checkpoints").glob("step-*"))
    last = first.with_name(f"step-{int(first.name[5:]) * 2 // 3:08d}")
    before = load_file(first / "model.safetensors")
    import shutil

    shutil.rmtree(first)
    assert last.is_dir()
    assert call(f"resume={run_of(lists, 'once')}", cwd=lists).code == 0
    after = load_file(first / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "cells",
    [
        ("\"['cat', 'dog']\"", "['cat']"),
        ('"[""cat"", ""dog""]"', '"[""cat""]"'),
        ("['cat' 'dog']", "['cat']"),
        ('"[cat, dog]"', "['cat']"),
    ],
)
def test_a_list_in_a_cell_is_no_class(tmp_path: Path, cells: tuple[str, str]) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.full((8, 8), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    rows = [f"{'ab'[n % 2]}.png,{cells[n % 2]}" for n in range(6)]
    (tmp_path / "list.csv").write_text("\n".join(["path,tags", *rows]) + "\n", encoding="utf-8")
    for target_type in ("auto", "class"):
        with pytest.raises(DataError, match=r"list\.csv:2: column 'tags': .* is a list of labels.* task=multi_label"):
            opened(tmp_path, label_column="tags", target_type=target_type)
    data = opened(tmp_path, label_column="tags", target_type="labels", label_separator=",", val_fraction=0.0)
    assert data.properties["labels"] == ["cat", "dog"]
    assert data.sources["train"]().labels_N.tolist() == [[1, 1], [1, 0]] * 3


def test_lists_of_parquet_and_json_lines_are_labels_too(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    rows = [{"path": "a.png", "tags": tags} for tags in (["cat", "dog"], ["cat"], [])] * 3
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "list.parquet")
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for name in ("list.parquet", "list.jsonl"):
        settings = {**SETTINGS, "label_column": "tags", "val_fraction": 0.0}
        with pytest.raises(DataError, match=rf"{name}:1: column 'tags': .* is a list of labels"):
            csv_images(str(tmp_path / name), **settings)
        data = csv_images(str(tmp_path / name), **settings, target_type="labels", label_separator="|")
        assert data.sources["train"]().labels_N.tolist() == [[1, 1], [1, 0], [0, 0]] * 3


def test_the_number_of_weights_is_told_with_the_classes(lists: Path) -> None:
    words = ("dataset.label_column=kind", "dry_run=true")
    answer = call(*WORDS, *words, "loss.weight=[1,2,3]", cwd=lists)
    said = "loss.weight: got 3 weights, the data has 2 classes (a, b); set loss.weight=balanced or 2 numbers"
    assert (answer.code, said in answer.err) == (2, True), answer.err
    fine = call(*WORDS, *LABELS, "dry_run=true", cwd=lists)
    assert fine.code == 0, fine.err
    assert "chosen by task=multi_label: monitor=val/auc" in fine.out
