"""Map the published weights of GPT-2 (Radford et al. 2019) to the names and layout of `GPT`.

The authors, and Hugging Face's files, store a linear layer's weights as (inputs, outputs), transposed to torch's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_TOP_LEVEL_NAMES = {"wte": "embed", "wpe": "positions", "ln_f": "norm", "lm_head": "head"}
_BLOCK_NAMES = {
    "ln_1": "before_attention",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "before_mlp",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}
_MASKS = (".attn.bias", ".attn.masked_bias")  # causal masks, stored beside the weights


def is_gpt2(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the tensors have GPT-2's published names."""
    return all(name in tensors and tensors[name].ndim == 2 for name in ("wte.weight", "wpe.weight"))


def from_gpt2(tensors: Mapping[str, Tensor], context: int, tied: bool) -> dict[str, Tensor]:
    """Return GPT-2's weights under this package's names and layout, and the first `context` positions.

    Raises:
        ValueError: the file has separate output weights, and the model's are `tied` to the embedding.
    """
    mapped = {}
    for name, tensor in tensors.items():
        if name.endswith(_MASKS):
            continue
        layer, _, tensor_name = name.rpartition(".")
        block = re.fullmatch(r"h\.(\d+)\.(.+)", layer)
        if block is None:
            mapped[f"{_TOP_LEVEL_NAMES.get(layer, layer)}.{tensor_name}"] = tensor
        else:
            own_name = f"blocks.{block[1]}.{_BLOCK_NAMES.get(block[2], block[2])}.{tensor_name}"
            mapped[own_name] = tensor.T if tensor.ndim == 2 else tensor
    embedding = mapped["embed.weight"]
    mapped["positions.weight"] = mapped["positions.weight"][:context]
    if not tied:
        mapped.setdefault("head.weight", embedding)
    elif not torch.equal(mapped.pop("head.weight", embedding), embedding):
        raise ValueError("the output's weights are not the embedding's; set model.tie_embeddings=false")
    return mapped


def to_gpt2(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return this package's weights under GPT-2's names and in its layout; tied weights once."""
    top_level = {own: name for name, own in _TOP_LEVEL_NAMES.items()}
    in_block = {own: name for name, own in _BLOCK_NAMES.items()}
    named = {}
    for own, tensor in weights.items():
        layer, _, tensor_name = own.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", layer)
        if block is None:
            named[f"{'' if layer == 'head' else 'transformer.'}{top_level[layer]}.{tensor_name}"] = tensor
        else:
            name = f"transformer.h.{block[1]}.{in_block[block[2]]}.{tensor_name}"
            named[name] = tensor.T if tensor.ndim == 2 else tensor
    return named
