"""A trained run can be opened, evaluated and asked, from its checkpoint alone; damage and strangers are refused."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import bigmodel
from bigmodel.commands import evaluate, predict
from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from bigmodel.datasets.images.picture_check import readable_suffixes
from bigmodel.errors import ConfigError, DataError, OutOfMemoryError, StorageError
from bigmodel.inference.processors.files import list_files
from bigmodel.runs import checkpoint
from conftest import call


def configured(command, *overrides):
    return compose(command, overrides, ConfigSource((conf_directory(),), command))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    small = ("model.channels=8", "model.hidden=32", "epochs=3", "keep=10", "ema=0.5", "device=cpu")
    answer = call(*small, f"output_dir={output}", cwd=output)
    assert answer.code == 0, answer.err
    (path,) = output.glob("*/*")
    return path


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Twenty test images as files, and their labels."""
    folder = tmp_path_factory.mktemp("images")
    tensors = load_file(Path(bigmodel.__file__).parent / "datasets" / "images" / "digits.safetensors")
    for number, pixels in enumerate(tensors["test_pixels"][:20]):
        place = folder / "below" if number >= 10 else folder
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(place / f"{number:02}.png")
    (folder / "notes.txt").write_text("not an image")
    return folder, tensors["test_labels"][:20].tolist()


def test_load_opens_the_best_checkpoint_with_the_averaged_weights(trained):
    predictor = bigmodel.load(str(trained))
    best = json.loads((trained / "checkpoints" / "best.json").read_text())["step"]
    assert predictor.step == best
    assert predictor.classes == [str(n) for n in range(10)]
    assert not predictor.model.training
    averaged = checkpoint.load(trained / "checkpoints" / f"step-{best:08d}").tensors["ema"]
    assert all(torch.equal(predictor.model.state_dict()[name], tensor) for name, tensor in averaged.items())


def test_one_checkpoint_alone_is_enough(trained, tmp_path, digits):
    oldest = checkpoint.list_checkpoints(trained / "checkpoints")[-1]
    alone = shutil.copytree(oldest, tmp_path / oldest.name)
    image = digits[0] / "00.png"
    ((path, answer),) = bigmodel.load(str(alone)).predict([image])
    assert path == str(image)
    probs = [one["probability"] for one in answer["top"]]
    assert len(probs) == 10
    assert answer["probability"] == probs[0] == max(probs)
    assert sum(probs) == pytest.approx(1)


def test_loading_leaves_the_callers_random_numbers_alone(trained):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    bigmodel.load(str(trained))
    assert torch.equal(torch.rand(2), expected)


def test_a_damaged_best_checkpoint_falls_back_with_a_warning(copied):
    root = copied / "checkpoints"
    best = json.loads((root / "best.json").read_text())["step"]
    with (root / f"step-{best:08d}" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff\xff")
    predictor = bigmodel.load(str(copied))
    assert predictor.step != best
    assert "best checkpoint" in predictor.warnings[0]
    with pytest.raises(StorageError, match=r"model\.safetensors"):
        bigmodel.load(str(root / f"step-{best:08d}"))
    for path in checkpoint.list_checkpoints(root):
        (path / "MANIFEST.json").unlink()
    with pytest.raises(StorageError, match="no checkpoint can be used") as caught:
        bigmodel.load(str(copied))
    assert not any("falling back" in line for line in caught.value.lines)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": "x"}'])
def test_a_damaged_pointer_falls_back(copied, content):
    (copied / "checkpoints" / "best.json").write_text(content)
    predictor = bigmodel.load(str(copied))
    assert predictor.step == int(checkpoint.list_checkpoints(copied / "checkpoints")[0].name[5:])
    assert predictor.warnings


@pytest.mark.parametrize("name", ["nothing", "checkpoints", "step-00000001"])
def test_a_wrong_path_is_a_config_error(tmp_path, name):
    with pytest.raises(ConfigError, match="run: there is no run at"):
        bigmodel.load(str(tmp_path / name))


@pytest.mark.parametrize("target", ["strange.Model", "os.system", "subprocess.run", "pathlib.Path"])
@pytest.mark.parametrize("group", ["model", "task", "dataset"])
def test_a_strangers_checkpoint_calls_and_imports_nothing_of_its_own(trained, tmp_path, monkeypatch, group, target):
    marker = tmp_path / "imported"
    (tmp_path / "strange.py").write_text(f"open({str(marker)!r}, 'w')\nModel = dict\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = checkpoint.load_newest(trained / "checkpoints")[0]
    config = found.state["config"]
    config[group] = config[group] | {"_target_": target}
    path = checkpoint.save(tmp_path / "checkpoints", int(found.state["step"]), found.tensors, dict(found.state))
    with pytest.raises(ConfigError, match="is not trusted"):
        evaluate.run(configured("evaluate", f"run='{path}'", "device=cpu"))
    assert not marker.exists()


@pytest.mark.parametrize("missing", ["config", "classes", "mean", "input_shape"])
def test_a_state_of_another_version_is_refused(trained, tmp_path, missing):
    found = checkpoint.load_newest(trained / "checkpoints")[0]
    state = {key: value for key, value in found.state.items() if key != missing}
    path = checkpoint.save(tmp_path / "checkpoints", int(found.state["step"]), found.tensors, state)
    with pytest.raises(StorageError, match=missing):
        bigmodel.load(str(path))


def test_evaluate_agrees_with_the_run_for_any_batch_size(trained, capsys):
    expected = json.loads((trained / "summary.json").read_text())["test"]
    for size in (7, 256, 100_000):
        evaluate.run(configured("evaluate", f"run='{trained}'", "device=cpu", "format=json", f"batch_size={size}"))
        report = json.loads(capsys.readouterr().out)
        assert report["samples"] == 359
        assert report["confusion"] == expected["confusion"]
        assert report["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def test_evaluate_takes_the_runs_own_validation_split(trained, capsys):
    evaluate.run(configured("evaluate", f"run='{trained}'", "device=cpu", "format=json", "split=val"))
    report = json.loads(capsys.readouterr().out)
    assert report["accuracy"] == json.loads((trained / "checkpoints" / "best.json").read_text())["value"]


def test_evaluate_tells_that_memory_ran_out(trained, monkeypatch):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(evaluate, "evaluate", full)
    with pytest.raises(OutOfMemoryError, match="out of memory at batch_size=7; lower it"):
        evaluate.run(configured("evaluate", f"run='{trained}'", "device=cpu", "batch_size=7"))


def test_evaluate_prints_a_table(trained, capsys):
    evaluate.run(configured("evaluate", f"run='{trained}'", "device=cpu", "split=train"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:7]] == ["run", "step", "split", "samples", "loss", "accuracy", "top5"]
    assert len(lines) == 7 + 2 + 10
    assert all("\x1b" not in line for line in lines)


def test_a_split_that_the_run_lacks_is_a_config_error(trained, tmp_path):
    found = checkpoint.load_newest(trained / "checkpoints")[0]
    found.state["config"]["dataset"]["val_fraction"] = 0.0
    path = checkpoint.save(tmp_path / "checkpoints", int(found.state["step"]), found.tensors, dict(found.state))
    with pytest.raises(ConfigError, match="split: this run has no 'val' data; choices: train, test"):
        evaluate.run(configured("evaluate", f"run='{path}'", "device=cpu", "split=val"))


def test_predict_gives_a_json_line_an_image(trained, digits, capsys):
    folder, labels = digits
    options = (f"run='{trained}'", "device=cpu", "format=json", "top=4", "batch_size=6")
    predict.run(configured("predict", f"input='{folder}'", *options))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["input"] for row in rows] == sorted(str(path) for path in folder.rglob("*.png"))
    by_number = {int(row["input"][-6:-4]): row for row in rows}
    assert np.mean([by_number[n]["class"] == str(label) for n, label in enumerate(labels)]) > 0.7
    for row in rows:
        assert len(row["top"]) == 4
        assert row["top"][0] == {"class": row["class"], "probability": row["probability"]}


def test_predict_prints_an_aligned_table(trained, digits, capsys):
    predict.run(configured("predict", f"run='{trained}'", "device=cpu", f"input='{digits[0]}/0*.png'", "top=50"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 10
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split()[0] == str(digits[0] / "00.png")


def test_a_bad_image_is_named_and_the_others_are_done(trained, digits, tmp_path, capsys):
    folder = shutil.copytree(digits[0], tmp_path / "mixed")
    (folder / "05.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(DataError, match="1 of 20 inputs") as caught:
        predict.run(configured("predict", f"run='{trained}'", "device=cpu", f"input='{folder}'", "format=json"))
    assert caught.value.exit_code == 3
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 19
    assert "05.png" in printed.err


@pytest.mark.parametrize("given", ["nothing.png", "*.png", "empty"])
def test_no_image_is_a_data_error(trained, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="input: "):
        predict.run(configured("predict", f"run='{trained}'", "device=cpu", f"input='{given}'"))


@pytest.mark.parametrize("form", ["table", "json"])
def test_files_named_on_standard_input_are_answered_as_they_come(trained, digits, monkeypatch, capsys, form):
    names = [digits[0] / "00.png", digits[0] / "01.png", Path("gone\udcff.png"), digits[0] / "below" / "10.png"]
    printed = []

    def lines():
        for name in names:
            printed.append(capsys.readouterr().out.splitlines())
            yield os.fsencode(name) + b"\n"
        yield b"\n"

    options = (f"run='{trained}'", "input=-", "device=cpu", "batch_size=2", f"format={form}")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=lines()))
    with pytest.raises(DataError, match="1 of 4 inputs"):
        predict.run(configured("predict", *options))
    assert [len(lines) for lines in printed] == [0, 0, 2 + (form == "table"), 0]  # before each name was asked for
    assert str(names[1]) in printed[2][-1]
    last = capsys.readouterr()
    assert str(names[3]) in last.out
    assert r"gone\udcff.png" in last.err
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=iter([b"\n"])))
    with pytest.raises(DataError, match="standard input names no image"):
        predict.run(configured("predict", *options))


def test_a_file_named_like_a_pattern_is_taken_literally(tmp_path):
    name = tmp_path / "a[1].png"
    name.write_bytes(b"")
    assert list_files(str(name), readable_suffixes(), "image") == [str(name)]


def test_control_codes_in_names_do_not_reach_the_terminal(trained, digits, tmp_path, capsys):
    shutil.copy(digits[0] / "00.png", tmp_path / "a\x1b[31m.png")
    predict.run(configured("predict", f"run='{trained}'", "device=cpu", f"input='{tmp_path}'"))
    assert "\x1b" not in capsys.readouterr().out
