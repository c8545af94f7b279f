"""Map published weights of the llama family (Touvron et al. 2023, arXiv:2302.13971) to the names and layout of `GPT`.

Their queries, keys and values are three linear layers, ours one; so are the two of the gated MLP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_TOP_LEVEL_NAMES = {"embed_tokens": "embed", "norm": "norm", "lm_head": "head"}
_BLOCK_NAMES = {
    "input_layernorm": "before_attention",
    "self_attn.o_proj": "attention.out",
    "self_attn.q_norm": "attention.q_norm",
    "self_attn.k_norm": "attention.k_norm",
    "post_attention_layernorm": "before_mlp",
    "mlp.down_proj": "mlp.down",
}
_JOINED = {  # ours, and those whose rows follow each other in it
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
}
_FREQUENCIES = ".rotary_emb.inv_freq"  # of old files; computed here


def is_llama(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the tensors have the names of llama's published files."""
    return any(name.endswith("layers.0.self_attn.q_proj.weight") for name in tensors)


def from_llama(tensors: Mapping[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """Return llama's weights under this package's names and layout.

    Raises:
        ValueError: a part of a joined layer is missing, or the file has separate output weights and the model's are
            `tied` to the embedding.
    """
    plain = {name.removeprefix("model."): t for name, t in tensors.items() if not name.endswith(_FREQUENCIES)}
    mapped: dict[str, Tensor] = {}
    for name, tensor in plain.items():
        layer, _, tensor_name = name.rpartition(".")
        block = re.fullmatch(r"layers\.(\d+)\.(.+)", layer)
        if block is None:
            mapped[f"{_TOP_LEVEL_NAMES.get(layer, layer)}.{tensor_name}"] = tensor
            continue
        joined = next((own for own, parts in _JOINED.items() if block[2] in parts), None)
        if joined is None:
            mapped[f"blocks.{block[1]}.{_BLOCK_NAMES.get(block[2], block[2])}.{tensor_name}"] = tensor
        elif block[2] == _JOINED[joined][0]:
            names = [f"layers.{block[1]}.{part}.{tensor_name}" for part in _JOINED[joined]]
            missing = [other for other in names if other not in plain]
            if missing:
                raise ValueError(f"there is {name}, but no {missing[0]}")
            mapped[f"blocks.{block[1]}.{joined}.{tensor_name}"] = torch.cat([plain[other] for other in names])
    embedding = mapped.get("embed.weight")
    if embedding is None:
        raise ValueError("there is no embed_tokens.weight")
    if not tied:
        mapped.setdefault("head.weight", embedding)
    elif not torch.equal(mapped.pop("head.weight", embedding), embedding):
        raise ValueError("the output's weights are not the embedding's; set model.tie_embeddings=false")
    return mapped


def to_llama(weights: Mapping[str, Tensor], heads: int, kv_heads: int, head_width: int) -> dict[str, Tensor]:
    """Return this package's weights under llama's names; tied weights once."""
    top_level = {own: name for name, own in _TOP_LEVEL_NAMES.items()}
    in_block = {own: name for name, own in _BLOCK_NAMES.items()}
    rows = {"attention.qkv": [heads * head_width, kv_heads * head_width, kv_heads * head_width]}
    named = {}
    for own, tensor in weights.items():
        layer, _, tensor_name = own.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", layer)
        if block is None:
            prefix = "" if layer == "head" else "model."
            named[f"{prefix}{top_level[layer]}.{tensor_name}"] = tensor
        elif block[2] in _JOINED:
            names = _JOINED[block[2]]
            parts = torch.split(tensor, rows.get(block[2], len(tensor) // len(names)))
            for name, part in zip(names, parts, strict=True):
                named[f"model.layers.{block[1]}.{name}.{tensor_name}"] = part
        else:
            named[f"model.layers.{block[1]}.{in_block[block[2]]}.{tensor_name}"] = tensor
    return named
