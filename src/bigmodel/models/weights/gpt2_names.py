"""GPT-2's weights (Radford et al. 2019) as its authors name them and lay them out, in terms of our `GPT`.

They keep a linear layer's weights as inputs times outputs, and Hugging Face's files follow them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_OUTSIDE = {"wte": "embed", "wpe": "positions", "ln_f": "norm", "lm_head": "head"}
_IN_A_BLOCK = {
    "ln_1": "before_attention",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "before_mlp",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}
_MASKS = (".attn.bias", ".attn.masked_bias")  # which token sees which, kept beside the weights


def is_gpt2(tensors: Mapping[str, Tensor]) -> bool:
    """Whether they are named as GPT-2's are."""
    return all(name in tensors and tensors[name].ndim == 2 for name in ("wte.weight", "wpe.weight"))


def from_gpt2(tensors: Mapping[str, Tensor], context: int, tied: bool) -> dict[str, Tensor]:
    """GPT-2's weights by our names and in our layout. Of more positions the first `context` are taken.

    Raises:
        ValueError: the output has weights of its own, and the model's are `tied` to the embedding.
    """
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(_MASKS):
            continue
        layer, _, kind = name.rpartition(".")
        block = re.fullmatch(r"h\.(\d+)\.(.+)", layer)
        if block is None:
            found[f"{_OUTSIDE.get(layer, layer)}.{kind}"] = tensor
        else:
            own = f"blocks.{block[1]}.{_IN_A_BLOCK.get(block[2], block[2])}.{kind}"
            found[own] = tensor.T if tensor.ndim == 2 else tensor
    embedding = found["embed.weight"]
    found["positions.weight"] = found["positions.weight"][:context]
    if not tied:
        found.setdefault("head.weight", embedding)
    elif not torch.equal(found.pop("head.weight", embedding), embedding):
        raise ValueError("the output's weights are not the embedding's; set model.tied=false")
    return found
