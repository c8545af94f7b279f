"""Models make logits of the right shape, and weights from elsewhere fit or are refused, never executed."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import forks
from bigmodel.models.cnn import CNN
from bigmodel.models.inception import Inception
from bigmodel.models.mlp import MLP
from bigmodel.models.resnet import BasicBlock, CIFARResNet, ResNet
from bigmodel.models.torchvision_model import torchvision_model
from bigmodel.models.vgg import VGG
from bigmodel.models.vit import ViT
from bigmodel.models.weights import foreign_weights
from bigmodel.models.weights.foreign_weights import load_weights

OWN = {
    "mlp": lambda shape, classes: MLP(shape, classes, hidden=[16]),
    "cnn": lambda shape, classes: CNN(shape, classes, channels=4, hidden=16),
    "resnet": lambda shape, classes: ResNet(shape, classes, blocks=[1, 1, 1, 1], width=4),
    "resnet_cifar": lambda shape, classes: CIFARResNet(shape, classes, depth=8, width=4),
    "vit": lambda shape, classes: ViT(shape, classes, patch=2, layers=1, width=8, pool="token"),
    "vgg": lambda shape, classes: VGG(shape, classes, width=4),
    "inception": lambda shape, classes: Inception(shape, classes, widths=[8, 9], blocks=1, stem=4),
}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 10), (3, 80, 96)])
@pytest.mark.parametrize("name", OWN)
def test_own_models_give_logits_and_gradients(name, shape):
    model = OWN[name](shape, 7)
    outputs = model(torch.randn(2, *shape))
    assert outputs.shape == (2, 7)
    outputs.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", OWN)
def test_own_models_build_without_memory(name):
    with torch.device("meta"):
        model = OWN[name]((3, 32, 32), 10)
        assert model(torch.empty(4, 3, 32, 32)).shape == (4, 10)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: ResNet((3, 224, 224), 1000), 11_689_512),
        (lambda: CIFARResNet((3, 32, 32), 10, depth=20), 269_722),
        (lambda: CIFARResNet((3, 32, 32), 10, depth=56), 853_018),
    ],
    ids=["18", "20", "56"],
)
def test_residual_networks_have_their_published_size(make, size):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == size


def test_a_shortcut_without_parameters_pads_channels_and_skips_pixels():
    widened = BasicBlock(2, 4, 2, projected=False).shortcut(x := torch.randn(1, 2, 5, 4))
    assert torch.equal(widened[:, 1:3], x[:, :, ::2, ::2])
    assert not widened[:, [0, 3]].any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CIFARResNet((3, 8, 8), 2, depth=18), "depth: must be 6n"),
        (lambda: ViT((3, 8, 10), 2, patch=4), "patch: 4 does not divide images of 8x10"),
        (lambda: ViT((3, 8, 8), 2, width=10, heads=4), "width: 10 cannot"),
        (lambda: Inception((3, 2, 2), 2), "widths: 3 stages halve 2x2 pixels too often"),
        (lambda: Inception((3, 8, 8), 2, widths=[3]), "widths: must be 4 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (3, 64, 64)),
        ("resnet18", (1, 28, 28)),
        ("vgg11", (3, 32, 32)),
        ("mobilenet_v3_small", (4, 32, 32)),
        ("inception_v3", (3, 96, 96)),
        ("googlenet", (3, 32, 32)),
        ("vit_b_16", (3, 32, 32)),
    ],
)
def test_torchvision_models_take_any_channels_and_classes(name, shape):
    with torch.device("meta"):
        model = torchvision_model(shape, 7, name)
        assert model.training
        outputs = model(torch.empty(2, *shape))
        assert outputs.shape == (2, 7)
        outputs.sum().backward()


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("resnet81", (3, 32, 32), "did you mean resnet18"),
        ("vgg11", (1, 8, 8), "does not take images of 1x8x8"),
        ("vit_b_16", (3, 32, 48), "square"),
        ("vit_b_16", (3, 30, 30), "does not take images of 3x30x30"),
        ("fasterrcnn_resnet50_fpn", (3, 32, 32), "no classifier"),
    ],
)
def test_torchvision_mistakes_are_explained(name, shape, words):
    with torch.device("meta"), pytest.raises(ValueError, match=words):
        torchvision_model(shape, 7, name)


def test_timm_models():
    timm_model = pytest.importorskip("bigmodel.models.timm_model").timm_model
    pytest.importorskip("timm")
    assert timm_model((1, 32, 32), 7, "resnet18")(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert timm_model((3, 32, 48), 7, "vit_tiny_patch16_224")(torch.randn(2, 3, 32, 48)).shape == (2, 7)
    with pytest.raises(ValueError, match=r"did you mean .*resnet18"):
        timm_model((1, 32, 32), 7, "resnet81")
    with pytest.raises(ValueError, match="has no model"):
        timm_model((1, 32, 32), 7, "hf-hub:timm/resnet18.a1_in1k")


@pytest.fixture
def small():
    return MLP((1, 4, 4), 3, hidden=[8])


@pytest.fixture
def quick_reader(monkeypatch):
    """Torch files are read in a process that was forked, and need not import torch; two tests start a real one."""
    monkeypatch.setattr(foreign_weights.subprocess, "run", forks.run_module)


@pytest.mark.usefixtures("quick_reader")
@pytest.mark.parametrize(
    ("ending", "wrap"),
    [(".pth", lambda s: s), (".pt", lambda s: {"state_dict": s, "epoch": 3}), (".th", lambda s: {"model": s})],
)
def test_torch_files_are_unwrapped_and_copied(tmp_path, small, wrap, ending):
    file = tmp_path / f"weights{ending}"
    torch.save(wrap({f"module.{name}": tensor for name, tensor in small.state_dict().items()}), file)
    model = MLP((1, 4, 4), 3, hidden=[8])
    assert load_weights(model, str(file)) == "loaded 4 of 4 tensors"
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in small.state_dict().items())


def test_another_number_of_classes_leaves_the_classifier_new(tmp_path, small):
    file = tmp_path / "weights.safetensors"
    save_file(small.state_dict(), file)
    model = MLP((1, 4, 4), 5, hidden=[8])
    before = model.head.weight.clone()
    said = "loaded 2 of 4 tensors; 2 newly initialized: head.weight, head.bias; the file's classifier is of 3 classes"
    assert load_weights(model, str(file)) == said
    assert torch.equal(model.head.weight, before)
    assert torch.equal(model.layers[0].weight, small.layers[0].weight)


@pytest.mark.slow
def test_pretrained_weights_reach_a_torchvision_model(tmp_path, capsys):
    trained = torchvision_model((3, 32, 32), 10, "mobilenet_v3_small")
    file = tmp_path / "weights.pth"
    torch.save(trained.state_dict(), file)
    model = torchvision_model((3, 32, 32), 4, "mobilenet_v3_small", pretrained=str(file))
    assert torch.equal(model.features[0][0].weight, trained.features[0][0].weight)
    assert "2 newly initialized: classifier.3.weight, classifier.3.bias" in capsys.readouterr().err
    save_file(trained.state_dict(), plain := tmp_path / "weights.safetensors")
    grey = torchvision_model((1, 32, 32), 10, "mobilenet_v3_small", pretrained=str(plain)).eval()
    assert "features.0.0.weight: 3 channels summed to 1" in capsys.readouterr().err
    x_N1HW = torch.randn(2, 1, 32, 32)
    assert torch.allclose(grey(x_N1HW), trained.eval()(x_N1HW.expand(-1, 3, -1, -1)), atol=1e-5)
    with pytest.raises(ValueError, match=r"features\.0\.0\.weight: 16x3x3x3 in the file, 16x2x3x3 in the model"):
        torchvision_model((2, 32, 32), 10, "mobilenet_v3_small", pretrained=str(plain))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (MLP((1, 4, 4), 3, hidden=[9]), r"layers\.0\.weight: 9x16 in the file, 8x16 in the model"),
        (nn.Sequential(nn.Linear(2, 2)), "none of its tensors"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, small, other, words):
    file = tmp_path / "weights.safetensors"
    save_file(other.state_dict(), file)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        load_weights(small, str(file))
    assert all(torch.equal(small.state_dict()[name], tensor) for name, tensor in before.items())


class _Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_malicious_pickle_is_not_executed(tmp_path, small):
    marker, file = tmp_path / "executed", tmp_path / "weights.pth"
    torch.save({"state_dict": _Attack(marker)}, file)
    with pytest.raises(ValueError, match="more than plain tensors"):
        load_weights(small, str(file))
    assert not marker.exists()


@pytest.mark.usefixtures("quick_reader")
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.bin"])
def test_files_that_are_no_weights_are_refused(tmp_path, small, name):
    with pytest.raises(ValueError, match="there is no file"):
        load_weights(small, str(tmp_path / name))
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(ValueError, match="pretrained: "):
        load_weights(small, str(tmp_path / name))
