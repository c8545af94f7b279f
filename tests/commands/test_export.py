"""An exported file computes what the original computes, or it is not there."""

import json
import stat
import sys
import zipfile

import pytest
import torch

import bigmodel
from bigmodel.commands import export
from bigmodel.config.composition import ConfigSource, compose
from bigmodel.config.location import conf_directory
from bigmodel.errors import BigmodelError, ConfigError, StorageError
from bigmodel.models.mlp import MLP
from bigmodel.models.resnet import ResNet
from bigmodel.runs import checkpoint

NODES = {
    "mlp": {"_target_": "bigmodel.models.mlp.MLP", "hidden": [8], "dropout": 0.5},
    "resnet": {"_target_": "bigmodel.models.resnet.ResNet", "blocks": [1, 1, 1, 1], "width": 4},
}
KINDS = {"mlp": MLP, "resnet": ResNet}
SHAPE = [3, 8, 8]


def saved(root, kind):
    """A checkpoint as training writes it, of a model with random weights and batch statistics."""
    node = NODES[kind] | {"input_shape": SHAPE, "num_classes": 6}
    model = KINDS[kind](**{key: value for key, value in node.items() if key != "_target_"})
    model.train()
    model(torch.randn(16, *SHAPE))
    about = {"classes": list("abcdef"), "input_shape": SHAPE, "mean": [0.5] * 3, "std": [0.2] * 3}
    root.mkdir()
    state = {"step": 7, "config": {"model": node}} | about
    checkpoint.save(root / "checkpoints", 7, {"model": model.state_dict(), "optimizer": {}}, state)
    return root


def run(*overrides):
    export.run(compose("export", overrides, ConfigSource((conf_directory(),), "export")))


@pytest.fixture
def directory(tmp_path):
    return saved(tmp_path / "run", "resnet")


def onnx_function(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(None, {"input": inputs.numpy()})[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", NODES)
@pytest.mark.parametrize("form", ["onnx", "torch_export", "safetensors"])
def test_an_export_agrees_for_any_batch(tmp_path, kind, form, capfd):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    directory = saved(tmp_path / "run", kind)
    run(f"run='{directory}'", f"format={form}")
    path = directory / "export" / f"model.{ {'torch_export': 'pt2'}.get(form, form) }"
    printed = capfd.readouterr()
    assert printed.err == ""
    assert len(printed.out.splitlines()) == 1
    assert str(path) in printed.out
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.json"]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(path.with_name(f"{path.name}.json").stat().st_mode)
    original = bigmodel.load(str(directory)).model
    inputs = torch.randn(5, *SHAPE)
    if form == "onnx":
        outputs = onnx_function(path)(inputs)
    elif form == "torch_export":
        outputs = torch.export.load(path).module()(inputs)
    else:
        from safetensors.torch import load_file

        model = KINDS[kind](SHAPE, 6, **{k: v for k, v in NODES[kind].items() if k != "_target_"})
        model.load_state_dict(load_file(path))
        outputs = model.eval()(inputs)
    torch.testing.assert_close(outputs, original(inputs), atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=pytest.mark.slow), "torch_export"])
def test_an_export_names_no_file_of_this_machine(directory, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    output = tmp_path / f"m.{'onnx' if form == 'onnx' else 'pt2'}"
    run(f"run={directory}", f"format={form}", f"output={output}")
    content = output.read_bytes()
    if form == "torch_export":
        with zipfile.ZipFile(output) as archive:
            assert not any(info.compress_type for info in archive.infolist())
    assert not [part for part in (b"/bigmodel/models", b"/site-packages/", str(tmp_path).encode()) if part in content]


def test_the_sidecar_says_how_to_use_the_file(directory):
    run(f"run='{directory}'", "format=safetensors")
    about = json.loads((directory / "export" / "model.safetensors.json").read_text())
    assert about["classes"] == list("abcdef")
    assert about["input_shape"] == SHAPE
    assert (about["mean"], about["std"]) == ([0.5] * 3, [0.2] * 3)
    assert about["model"]["_target_"] == "bigmodel.models.resnet.ResNet"


@pytest.mark.slow
def test_opset(directory, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    output = tmp_path / "some" / "net.onnx"
    run(f"run='{directory}'", f"output='{output}'", "opset=20")
    assert onnx.load(output).opset_import[0].version == 20


def test_a_difference_beyond_the_tolerance_leaves_nothing(directory, monkeypatch):
    monkeypatch.setattr(export, "_difference", lambda *_: float("nan"))
    with pytest.raises(BigmodelError, match="outputs differ from the original's by nan"):
        run(f"run='{directory}'", "format=safetensors")
    assert not (directory / "export").exists()


def test_a_failed_export_keeps_the_one_before(directory, monkeypatch):
    run(f"run='{directory}'", "format=safetensors")
    before = (directory / "export" / "model.safetensors").read_bytes()
    monkeypatch.setattr(export, "_difference", lambda *_: 1.0)
    with pytest.raises(BigmodelError, match="outputs differ from the original's by 1"):
        run(f"run='{directory}'", "format=safetensors")
    assert (directory / "export" / "model.safetensors").read_bytes() == before
    assert len(list((directory / "export").iterdir())) == 2


def test_missing_packages_are_named(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'bigmodel-train\[export\]'"):
        run(f"run='{directory}'", "format=onnx")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("format=safetensors", "output=net.onnx"), r"must be a file name that ends in \.safetensors"),
        (("format=safetensors", "opset=20"), "opset: applies to format=onnx"),
        (("tolerance=0",), "tolerance"),
        (("format=tflite",), "onnx, torch_export"),
    ],
)
def test_mistakes_are_config_errors(directory, words, match):
    with pytest.raises(ConfigError, match=match):
        run(f"run='{directory}'", *words)


def test_an_output_that_cannot_be_written_is_a_storage_error(directory, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        run(f"run='{directory}'", "format=safetensors", f"output='{tmp_path}/file/net.safetensors'")
