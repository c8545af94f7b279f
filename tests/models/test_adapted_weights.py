"""Weights for other pictures are adapted and said to be, or refused with the setting that does it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bigmodel.models.cnn import CNN
from bigmodel.models.vit import ViT
from bigmodel.models.weights.foreign_weights import load_matching
from conftest import TINY, call, is_quiet


def vit(size: int, channels: int = 3, pool: str = "mean", classes: int = 3) -> ViT:
    torch.manual_seed(0)
    return ViT((channels, size, size), classes, patch=4, layers=1, heads=2, width=8, pool=pool)  # type: ignore[arg-type]


def test_grey_pictures_are_seen_as_grey_colours_were() -> None:
    colour, grey = vit(16).eval(), vit(16, channels=1).eval()
    report = load_matching(grey, colour.state_dict(), "file")
    assert report.changed == ["embed.weight: 3 channels summed to 1"]
    x_N1HW = torch.randn(2, 1, 16, 16)
    assert torch.allclose(grey(x_N1HW), colour(x_N1HW.expand(-1, 3, -1, -1)), atol=1e-5)
    back = vit(16).eval()
    assert load_matching(back, grey.state_dict(), "file").changed == ["embed.weight: 1 channel spread over 3"]
    assert torch.allclose(back(x_N1HW.expand(-1, 3, -1, -1)), grey(x_N1HW), atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_positions_are_resampled_from_grid_to_grid(pool: str) -> None:
    small, large = vit(16, pool=pool), vit(32, pool=pool)
    token = int(pool == "token")
    with torch.no_grad():  # a ramp from left to right stays one
        small.positions[token:] = torch.arange(4.0).repeat(4)[:, None]
        small.positions[:token] = 7.0
    report = load_matching(large, small.state_dict(), "file")
    assert report.changed == ["positions: positions resampled from 4x4 to 8x8"]
    grid = large.positions[token:].detach().reshape(8, 8, 8)
    assert torch.equal(large.positions[:token], small.positions[:token])
    assert torch.allclose(grid[0], grid[7], atol=1e-5)
    assert (grid[0, 1:, 0] > grid[0, :-1, 0]).all()
    again = vit(16, pool=pool)
    load_matching(again, large.state_dict(), "file")
    assert torch.allclose(again.positions, small.positions, atol=0.35)


@pytest.mark.slow
def test_vision_transformers_of_torchvision_and_timm_are_resampled(tmp_path: Path, capsys) -> None:
    timm_model = pytest.importorskip("bigmodel.models.timm_model").timm_model
    pytest.importorskip("timm")
    save_file(timm_model((3, 32, 32), 5, "vit_tiny_patch16_224").state_dict(), file := tmp_path / "vit.safetensors")
    timm_model((1, 64, 64), 5, "vit_tiny_patch16_224", pretrained=str(file))
    said = capsys.readouterr().err
    assert "pos_embed: positions resampled from 2x2 to 4x4" in said
    assert "patch_embed.proj.weight: 3 channels summed to 1" in said


def test_positions_of_texts_and_of_no_square_are_not_resampled() -> None:
    wide = ViT((3, 16, 32), 3, patch=4, layers=1, heads=2, width=8)
    with pytest.raises(ValueError, match=r"positions: 16x8 in the file, 32x8 in the model"):
        load_matching(wide, vit(16).state_dict(), "file")
    text = nn.Module()
    text.positions = nn.Parameter(torch.zeros(16, 8))
    text.head = nn.Linear(8, 2)
    with pytest.raises(ValueError, match=r"positions: 64x8 in the file"):
        load_matching(
            text, {"positions": torch.zeros(64, 8), "head.weight": torch.zeros(2, 8), "head.bias": torch.zeros(2)}, "f"
        )


def test_what_does_not_fit_names_the_setting_that_leaves_it_new() -> None:
    model, other = CNN((3, 16, 16), 3), dict(CNN((3, 16, 16), 3).state_dict())
    name = next(name for name, tensor in other.items() if tensor.ndim == 2)
    module = name.rpartition(".")[0]
    other[name] = torch.zeros(other[name].shape[0], 3)
    with pytest.raises(ValueError, match=rf"; init\.skip=\[{re.escape(module)}\.\*\] leaves these new"):
        load_matching(model, other, "file", settings="init.")
    report = load_matching(model, other, "file", skip=[f"{module}.*"], settings="init.")
    assert set(report.new) == {f"{module}.weight", f"{module}.bias"}


@pytest.fixture
def wrapped(tiny_run, tmp_path: Path) -> str:
    """Weights of the tiny run under names with a prefix."""
    tensors = load_file(max((tiny_run.run / "checkpoints").glob("step-*")) / "model.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "wrapped.safetensors")
    save_file({n: t for n, t in tensors.items() if "head" not in n}, tmp_path / "headless.safetensors")
    half = {n if "head" in n else f"net.{n}": t for n, t in tensors.items()}
    save_file(half | {"net.layers.9.weight": torch.zeros(1)}, tmp_path / "half.safetensors")
    return "init.from=wrapped.safetensors"


def test_a_prefix_that_is_in_the_way_is_named(wrapped: str, tmp_path: Path) -> None:
    (line,) = is_quiet(call(*TINY, wrapped, cwd=tmp_path), code=2)
    assert line.endswith("; try init.strip_prefix=module.")
    plan = call(*TINY, wrapped, "init.strip_prefix=module.", "epochs=0", "dry_run=true", cwd=tmp_path)
    assert "loaded 4 of 4 tensors" in plan.out


@pytest.mark.usefixtures("wrapped")
def test_without_epochs_missing_tensors_are_refused_unless_asked_for(tmp_path: Path) -> None:
    words = (*TINY, "init.from=headless.safetensors", "epochs=0")
    (line,) = is_quiet(call(*words, cwd=tmp_path), code=2)
    assert "epochs: 0 would test 2 tensors that are untrained, head.weight, head.bias; train them, or set" in line
    assert call(*words, "init.incomplete=test", cwd=tmp_path).code == 0
    assert call(*TINY, "init.from=headless.safetensors", "epochs=1", cwd=tmp_path).code == 0


@pytest.mark.slow
def test_real_weights_of_colours_see_grey_pictures(tmp_path: Path) -> None:
    data = os.environ.get("BIGMODEL_DATA_DIR", "")
    file = Path(data) / "shared" / "weights" / "resnet20-12fca82f.th"
    if not data or not file.is_file():
        pytest.skip("BIGMODEL_DATA_DIR holds no shared/weights")
    words = (
        "model=resnet_cifar",
        f"init.from={file}",
        "init.strip_prefix=module.",
        "epochs=0",
        "limit_batches=1",
        "device=cpu",
    )
    plan = call(*words, "dry_run=true", cwd=tmp_path)  # digits are grey
    assert "conv1.weight: 3 channels summed to 1" in plan.out, plan.out + plan.err
