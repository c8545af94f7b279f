"""An adapted layer computes what the plain layer with the sum of the weights computes, however its weights are read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bigmodel.models.weights.lora import LoRA, merge_lora


def test_the_sum_computes_the_same_however_a_model_reads_its_weights() -> None:
    torch.manual_seed(0)
    plain = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)  # calls, reads, and a fused kernel
    x = torch.randn(3, 5, 8)
    model = copy.deepcopy(plain)
    LoRA(rank=2, alpha=3, layers=["linear?", "*.out_proj"]).adapt(model)
    torch.testing.assert_close(model(x), plain(x))
    model(x).square().sum().backward()
    learn = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learn == {f"{name}.lora_{m}" for name in ("linear1", "linear2", "self_attn.out_proj") for m in "ab"}
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter)
    changed = copy.deepcopy(plain)
    changed.load_state_dict(merge_lora(model.state_dict()))
    for mode in (True, False):  # in evaluation the whole layer is one kernel
        with torch.no_grad():
            outputs, expected = model.train(mode)(x), changed.train(mode)(x)
        torch.testing.assert_close(outputs, expected)
        assert (outputs - plain(x)).abs().max() > 0.1


def test_a_layer_that_is_trained_anyway_is_not_adapted() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    told = LoRA(rank=1, also_train="1.*").adapt(model)
    assert told == "1 linear layer with matrices of rank 1; 18 weights are trained"
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        *("0.lora_a", "0.lora_b", "1.weight", "1.bias")
    }


@pytest.mark.parametrize("change", [{"lora_a": torch.zeros(2, 5)}, {"lora_b": torch.zeros(())}, {"lora_b": None}])
def test_matrices_that_do_not_fit_their_layer_are_refused(change: dict[str, torch.Tensor | None]) -> None:
    weights = {"weight": torch.zeros(3, 4), "lora_a": torch.zeros(2, 4), "lora_b": torch.zeros(3, 2)}
    weights["lora_scale"] = torch.ones(())
    assert list(merge_lora(weights)) == ["weight"]
    with pytest.raises(ValueError, match="lora_"):
        merge_lora({name: tensor for name, tensor in (weights | change).items() if tensor is not None})
