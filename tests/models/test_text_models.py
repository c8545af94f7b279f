"""Models of texts: what follows a text, and what is beside it in a batch, makes no difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bigmodel.models.bert import BertClassifier, MaskedBert
from bigmodel.models.text_cnn import TextCNN
from bigmodel.padding import pad

SIZES = {"layers": 1, "heads": 2, "width": 8}
MODELS = {
    "text_cnn": lambda: TextCNN(9, 3, width=4, filters=5),
    "first": lambda: BertClassifier(9, 16, 3, **SIZES, pool="first"),
    "mean": lambda: BertClassifier(9, 16, 3, **SIZES, pool="mean"),
    "masked": lambda: MaskedBert(9, 16, **SIZES),
}


@pytest.mark.parametrize("name", MODELS)
def test_padding_makes_no_difference(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    texts = [torch.tensor(text) for text in ([3], [0, 8, 8, 2], list(range(9)))]
    together = model(pad(texts, 14))
    for number, text in enumerate(texts):
        alone = model(text[None])[0]
        beside = together[number] if name != "masked" else together[number, : len(text)]
        torch.testing.assert_close(beside, alone, rtol=1e-5, atol=1e-6)
    if name != "masked":  # and what is in the text does
        assert not torch.allclose(together[0], together[1], atol=1e-4)


def test_a_classifier_starts_from_a_masked_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    masked: nn.Module = MaskedBert(9, 16, **SIZES)
    save_file({name: tensor.clone() for name, tensor in masked.state_dict().items()}, tmp_path / "w.safetensors")
    model = BertClassifier(9, 16, 3, **SIZES, pretrained=str(tmp_path / "w.safetensors"))
    own = model.state_dict()
    assert all(own[name].equal(value) for name, value in masked.state_dict().items() if name.startswith("encoder."))
    with pytest.raises(ValueError, match=r"encoder\.embed\.weight"):
        BertClassifier(10, 16, 3, **SIZES, pretrained=str(tmp_path / "w.safetensors"))
    with pytest.raises(ValueError, match="width: 8 cannot be divided among 3 heads"):
        BertClassifier(9, 16, 3, layers=1, heads=3, width=8)
