"""The network of the speed recipe: whitened patches, views at test time, early parameters, and the whole of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from bigmodel.models.whitened_cnn import WhitenedCNN
from conftest import Answer, fingerprint, records
from datasets.test_cifar import binary10

SHAPE = (3, 16, 16)
WORDS = (
    *(
        "device=cpu",
        "dataset=image_folder",
        "dataset.input_shape=[3,16,16]",
        "model=whitened_cnn",
        "model.widths=[4,8]",
    ),
    *("optim=muon_sgd", "optim.early_params=[whiten.bias]", "optim.early_until=0.5", "schedule=linear", "batch_size=8"),
    *("epochs=2", "save_every=1steps", "keep=99"),
)


def _model(**more: object) -> WhitenedCNN:
    torch.manual_seed(0)
    return WhitenedCNN(SHAPE, 5, widths=(4, 8), **more)


def _images(count: int) -> Tensor:
    smooth = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(smooth, scale_factor=2, mode="bilinear")  # neighbours alike, as in photos


def test_initialise_whitens_patches() -> None:
    model, images = _model(), _images(64)
    with torch.no_grad():
        model.init_from_batch(images)
        whitened = F.conv2d(images, model.whiten.weight)[:, :12].transpose(0, 1).flatten(1)  # one sign of each
    covariance = whitened @ whitened.T / whitened.shape[1]
    off = covariance - covariance.diag().diag()
    assert off.abs().max() < 1e-3
    assert covariance.diag().max() < 1.001
    assert (covariance.diag() > 0.9).sum() >= 6  # the rest hardly varies, and is not blown up
    torch.testing.assert_close(model.whiten.weight[:12], -model.whiten.weight[12:])


@pytest.mark.parametrize(("views", "count"), [("one", 1), ("mirrored", 2), ("shifted", 6)])
def test_evaluation_averages_views(views: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = _model(views=views).eval(), _images(3)
    calls = []
    logits = WhitenedCNN._logits

    def counted(self: WhitenedCNN, x: Tensor) -> Tensor:
        calls.append(x)
        return logits(self, x)

    monkeypatch.setattr(WhitenedCNN, "_logits", counted)
    with torch.no_grad():
        found = model(images)
    assert len(calls) == count
    padded = F.pad(images, (1, 1, 1, 1), "reflect")
    weighted = [(1.0, images)]
    if views == "shifted":
        weighted = [(0.5, images), (0.25, padded[:, :, :-2, :-2]), (0.25, padded[:, :, 2:, 2:])]
    with torch.no_grad():
        pairs = [(w, x, x.flip(3) if count > 1 else x) for w, x in weighted]
        expected = sum(w * (logits(model, a) + logits(model, b)) / 2 for w, a, b in pairs)
    torch.testing.assert_close(found, expected)
    assert model.train()(images).shape == (3, 5)
    assert len(calls) == count + 1  # training sees the images as they are


def test_the_last_two_of_three_convolutions_are_a_residual() -> None:
    for depth in (2, 3):
        block = _model(depth=depth).eval().blocks[2]
        assert sum(isinstance(module, torch.nn.Conv2d) for module in block.modules()) == depth
    images = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    *first, around, last = block
    with torch.no_grad():
        before = torch.nn.Sequential(*first)(images)
        inner = before
        for layer in around:
            inner = layer(inner)
        torch.testing.assert_close(block(images), last(before + inner))
        assert not inner.allclose(torch.zeros(()))


def test_the_96_percent_recipe_takes_a_step(cli: Callable[..., Answer], tmp_path: Path) -> None:
    binary10(tmp_path)
    words = ("device=cpu", "epochs=1", "limit_batches=1", "batch_size=8", "model.widths=[8,8,8]", "model.views=one")
    answer = cli("experiment=cifar10_96", *words, f"data_dir={tmp_path}", "log_every=1steps")
    assert answer.code == 0, answer.err
    train, test = records(answer.run)
    assert (train["split"], test["split"]) == ("train", "test")
    assert 0 < train["loss"] < 10


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        WhitenedCNN((3, 24, 24), 10)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    pixels = (_images(40).sigmoid() * 255).byte().permute(0, 2, 3, 1).numpy()
    for number, picture in enumerate(pixels):
        folder = root / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    return root


@pytest.mark.slow
def test_a_run_trains_early_parameters_early_and_resumes_bitwise(
    cli: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    answer = cli(*WORDS, f"dataset.root={photos}")
    assert answer.code == 0, answer.err
    biases = {}
    for path in sorted((answer.run / "checkpoints").glob("step-*")):
        biases[int(path.name[5:])] = load_file(path / "model.safetensors")["whiten.bias"]
    steps = max(biases)
    assert steps == 10
    half = steps // 2
    assert not biases[half - 1].equal(biases[half])
    assert all(biases[half].equal(biases[step]) for step in range(half, steps + 1))

    for stop in (2, half, half + 2):
        copy = tmp_path / str(stop)
        shutil.copytree(answer.run, copy)
        for path in (copy / "checkpoints").glob("step-*"):
            if int(path.name[5:]) > stop:
                shutil.rmtree(path)
        again = cli(f"resume={copy}")
        assert again.code == 0, again.err
        assert (fingerprint(copy), records(copy)) == (fingerprint(answer.run), records(answer.run))


def test_a_wrong_early_name_is_told(cli: Callable[..., Answer], photos: Path) -> None:
    answer = cli(*WORDS, f"dataset.root={photos}", "optim.early_params=[whitten.bias]")
    assert answer.code == 2
    assert "early_params: the model trains no parameter 'whitten.bias'" in answer.err
