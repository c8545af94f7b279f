"""An exported file says all that its use takes: axes of any length, and steps that need nothing of this package."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import bigmodel
from bigmodel.datasets.audio.wav import write_wav
from bigmodel.inference.processors.images import ImageClassificationProcessor
from bigmodel.models.scanned import replace_recurrent_layers
from conftest import call, only_run
from test_contract import ROWS, remarks, rows

pytestmark = pytest.mark.slow  # make test-all

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "run_exported.py"
TINY = ("device=cpu", "epochs=1", "limit_batches=2", "listeners=[]")


def sounds(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for label in ("high", "low"):
        (folder / "clips" / label).mkdir(parents=True)
        for number in range(12):
            time_T = torch.arange(2500 + 100 * number) / 8000
            wave_T = 0.5 * torch.sin(2 * torch.pi * (900 if label == "high" else 150) * time_T)
            noise_T = 0.05 * torch.randn(len(time_T), generator=generator)
            write_wav(folder / "clips" / label / f"{number}.wav", wave_T + noise_T, 8000)


def picture(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 33, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")


CASES = {
    "image": (("model=resnet_cifar", "model.depth=8", "model.width=4"), picture, "photo.png", "photo.png"),
    "row": (
        (*ROWS, "model=tabular_mlp", "model.hidden=[8]", "batch_size=8"),
        rows,
        "rows.csv",
        json.dumps({"size": 0, "hue": "a"}),
    ),
    "text": (
        ("dataset=labelled_text", "dataset.train=remarks.tsv", "dataset.context=8", "model=text_cnn", "batch_size=8"),
        remarks,
        "a good film, number 7",
        "a good film, number 7",
    ),
    "sound": (
        ("dataset=audio_folder", "dataset.root=clips", "model=audio_cnn", "batch_size=4", "dataset.frames=40"),
        sounds,
        "clips/high/3.wav",
        "clips/high/3.wav",
    ),
}


def exported(words, folder, form="onnx"):
    trained = call(*TINY, *words, cwd=folder)
    assert trained.code == 0, trained.err
    run = only_run(folder)
    answer = call(f"run={run}", f"format={form}", cwd=folder, verb="export")
    assert answer.code == 0, answer.err
    (file,) = (path for path in (run / "export").iterdir() if path.suffix != ".json")
    return run, file, json.loads(file.with_name(f"{file.name}.json").read_text(encoding="utf-8")), answer.out


def test_the_script_imports_nothing_of_ours():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"json", "re", "sys", "wave", "numpy", "onnxruntime", "PIL"}


def test_a_large_jpeg_is_read_as_the_steps_say(tmp_path):
    pytest.importorskip("onnxruntime")
    spec = importlib.util.spec_from_file_location("run_exported", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    pixels = np.random.default_rng(0).integers(0, 256, (150, 233, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", exif=turned)
    for channels in (1, 3):
        kind = ImageClassificationProcessor(["a"], (channels, 9, 7), [0.4] * channels, [0.3] * channels)
        value = str(tmp_path / "photo.jpg")
        for step in kind.steps()["preprocess"]:
            value = script.PREPROCESS[step["op"]](value, step)
        ours = kind.collate([kind.load(str(tmp_path / "photo.jpg"))], torch.device("cpu"))
        assert np.abs(value - ours.numpy()).max() < 1e-6


@pytest.mark.parametrize("case", [pytest.param(n, marks=() if n == "text" else pytest.mark.slow) for n in CASES])
def test_the_steps_lead_to_the_answer_without_this_package(case, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    words, make, given, raw = CASES[case]
    make(tmp_path)
    run, file, card, said = exported(words, tmp_path)
    assert "batch (1 or more)" in said
    assert card["axes"]["batch"] == {"min": 1, "max": None}
    alone = subprocess.run(
        [sys.executable, str(SCRIPT), str(file), raw], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = json.loads(alone.stdout)
    predicted = call(f"run={run}", f"input={given}", "device=cpu", "format=json", cwd=tmp_path, verb="predict")
    wanted = json.loads(predicted.out.splitlines()[0])
    assert found["class"] == wanted["class"]
    assert found["probability"] == pytest.approx(wanted["probability"], abs=1e-4)


def test_a_documented_step_is_each_that_a_kind_writes_down():
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    ops = set()
    for file in (ROOT / "src" / "bigmodel" / "inference" / "processors").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                ops |= {v.value for k, v in pairs if isinstance(k, ast.Constant) and k.value == "op"}
    assert len(ops) > 20
    assert {op for op in ops if f"`{op}`" not in page} == set()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_scan_computes_what_the_recurrent_layer_does(cell, layers):
    torch.manual_seed(0)
    layer = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](3, 4, layers, batch_first=True)
    x_NTC = torch.randn(2, 7, 3)
    with torch.no_grad():
        expected = layer(x_NTC)[0]
        found = replace_recurrent_layers(torch.nn.ModuleList([layer]))[0](x_NTC)[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_length_that_the_model_allows_is_free_in_torchs_own_program(tmp_path):
    remarks(tmp_path)
    words, *_ = CASES["text"]
    _, file, card, said = exported(words, tmp_path, "torch_export")
    assert card["axes"]["time"] == {"min": 1, "max": 8}
    assert card["input"]["shape"] == ["batch", "time"]
    assert "time (1 to 8) may vary" in said
    extra = {"bigmodel.json": ""}
    program = torch.export.load(file, extra_files=extra).module()
    assert json.loads(extra["bigmodel.json"])["preprocess"] == card["preprocess"]
    original = bigmodel.load(only_run(tmp_path)).model
    for count, length in ((1, 1), (1, 8), (4, 5)):
        tokens_NT = torch.randint(5, (count, length))
        torch.testing.assert_close(program(tokens_NT), original(tokens_NT), atol=1e-5, rtol=0)


def test_an_axis_that_stays_has_its_reason(tmp_path):
    _, _, card, said = exported(("model=mlp", "model.hidden=[8]"), tmp_path, "torch_export")
    assert set(card["fixed_axes"]) == {"height", "width"}
    assert card["fixed_axes"]["height"]["size"] == 8
    assert "shapes cannot be multiplied" in card["fixed_axes"]["height"]["reason"]
    assert "height stays 8: " in said
    (tmp_path / "second").mkdir()
    run = only_run(tmp_path)
    assert call(f"run={run}", "format=safetensors", cwd=tmp_path, verb="export").code == 0
    with safe_open(run / "export" / "model.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["bigmodel"])["classes"] == [str(n) for n in range(10)]


@pytest.mark.parametrize("opset", [5, 17, 99])
def test_an_opset_out_of_range_is_refused(opset, tiny_run, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    answer = call(f"run={tiny_run.run}", f"opset={opset}", f"output={tmp_path}/m.onnx", cwd=tmp_path, verb="export")
    assert answer.code == 2
    assert "opset: must be from 18 to" in answer.err
    assert f"got {opset}" in answer.err
    assert list(tmp_path.iterdir()) == []
