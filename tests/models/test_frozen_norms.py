"""A frozen batch norm is frozen: its statistics stay, whatever mode the model is in, in copies and in a resumed run."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bigmodel.models.frozen_norms import keep_in_eval
from conftest import TINY, Answer, call, fingerprint


def body() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False), nn.Flatten())


def moved(model: nn.Module) -> list[bool]:
    before = [buffer.clone() for name, buffer in model.named_buffers() if name.endswith("running_mean")]
    model.train()
    model(torch.randn(4, 1, 8, 8))
    after = [buffer for name, buffer in model.named_buffers() if name.endswith("running_mean")]
    return [not torch.equal(*pair) for pair in zip(before, after, strict=True)]


def test_only_norms_that_are_frozen_whole_stay() -> None:
    assert moved(body()) == [True, True]
    model = body()
    assert keep_in_eval(model) == []
    model[0].requires_grad_(False)
    model[1].weight.requires_grad_(False)
    assert keep_in_eval(model) == []
    model[1].requires_grad_(False)
    assert keep_in_eval(model) == ["1", "2"]
    assert moved(model) == [False, False]
    assert moved(copy.deepcopy(model)) == [False, False]
    assert model.train().training
    assert not model[1].training


CNN = ("model=resnet_cifar", "model.depth=8", "init.freeze=[conv1.*,bn1.*,layer*]")


def statistics(run: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.endswith("running_mean")}


@pytest.mark.parametrize("norms", ["eval", "train"])
def test_a_frozen_backbone_keeps_its_statistics_unless_told_otherwise(norms: str, tmp_path: Path) -> None:
    words = (*TINY[:1], *CNN, "limit_batches=2", "epochs=2", "save_every=2steps", f"init.frozen_norms={norms}")
    run: Answer = call(*words, cwd=tmp_path)
    assert run.code == 0, run.err
    stayed = all(not tensor.any() for tensor in statistics(run.run).values())
    assert stayed == (norms == "eval")
    assert ("running statistics stay in" in run.out) == (norms == "eval")
    before = fingerprint(run.run)
    import shutil

    shutil.rmtree(max((run.run / "checkpoints").glob("step-*")))
    assert call(f"resume={run.run}", cwd=tmp_path).code == 0
    assert fingerprint(run.run) == before
