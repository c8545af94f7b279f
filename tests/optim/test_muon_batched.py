"""Muon in batches: the same updates as matrix by matrix, orthogonal, and as torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bigmodel.models.cnn import CNN
from bigmodel.models.resnet import ResNet
from bigmodel.optim.muon import Muon, muon, newton_schulz
from bigmodel.optim.muon_sgd import muon_sgd

SHAPES = ((6, 20), (6, 20), (20, 6), (8, 8), (6, 20))


def _matrices(shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def _descend(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


@pytest.mark.parametrize("shape", [(3, 16, 40), (3, 40, 16), (2, 12, 12)])
def test_orthogonalised_has_the_directions_of_the_matrix_and_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = newton_schulz(matrices, 5)
    values = torch.linalg.svdvals(found)
    assert (values > 0.6).all()
    assert (values < 1.3).all()
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    nearest = left @ right
    alike = (found * nearest).flatten(1).sum(1) / (found.flatten(1).norm(dim=1) * nearest.flatten(1).norm(dim=1))
    assert (alike > 0.95).all()


def test_a_batch_of_matrices_is_updated_as_each_alone() -> None:
    together = _matrices()
    alone = _matrices()
    every = Muon(together, lr=0.1, weight_decay=0.1)
    each = [Muon([parameter], lr=0.1, weight_decay=0.1) for parameter in alone]
    for step in range(4):
        for number, (a, b) in enumerate(zip(together, alone, strict=True)):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(100 * step + number))
            b.grad = a.grad.clone()
        every.step()
        for optimizer in each:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nesterov", [True, False])
def test_updates_are_those_of_torch(nesterov: bool) -> None:
    start, ours, theirs = _matrices(), _matrices(), _matrices()
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "nesterov": nesterov}
    a = _descend(Muon(ours, **settings), ours)
    b = _descend(torch.optim.Muon(theirs, adjust_lr_fn="original", **settings), theirs)
    for before, own, other in zip(start, a, b, strict=True):  # torch iterates in bf16
        assert (own - other).norm() < 0.03 * (other - before).norm()


def test_unit_filters_keep_their_norm() -> None:
    filters = _matrices(((16, 3, 3, 3), (16, 3, 3, 3), (32, 16, 3, 3)))
    _descend(Muon(filters, lr=1e-9, unit=True), filters, steps=1)
    for weight in filters:
        assert weight.norm().item() == pytest.approx(len(weight) ** 0.5, rel=1e-5)


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="not vectors"):
        Muon([nn.Parameter(torch.zeros(3))])


def test_which_parameters_it_takes() -> None:
    model = ResNet((3, 8, 8), 4, blocks=(1, 1), width=4)
    matrices, rest = muon(model, filters=True)
    taken = {id(p) for group in matrices.param_groups for p in group["params"]}
    convolutions = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert taken == {id(weight) for weight in convolutions[1:]}
    others = {id(p) for group in rest.param_groups for p in group["params"]}
    assert taken | others == {id(p) for p in model.parameters()}
    assert not taken & others
    linear, _ = muon(CNN((3, 8, 8), 4, channels=2, hidden=5))
    assert [p.shape for group in linear.param_groups for p in group["params"]] == [(5, 128)]


def test_muon_sgd_has_every_parameter_once_and_early_ones_apart() -> None:
    model = ResNet((3, 8, 8), 4, blocks=(1, 1), width=4)
    optimizers = muon_sgd(model, early_params=["head.bias"], early_until=0.5, bias_lr=2.0, decay=0.004)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    everything = [id(p) for group in groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in model.parameters())
    (early,) = [group for group in groups if "until" in group]
    assert early["until"] == 0.5
    assert [id(p) for p in early["params"]] == [id(model.head.bias)]
    assert early["weight_decay"] * early["lr"] == pytest.approx(0.004)
    with pytest.raises(ValueError, match=r"trains no parameter 'hed\.bias'"):
        muon_sgd(copy.deepcopy(model), early_params=["hed.bias"])
    with pytest.raises(ValueError, match="2-D convolutions"):
        muon_sgd(nn.Linear(2, 2))
