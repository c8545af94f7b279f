"""Map published weights of BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019, arXiv:1907.11692) to the names and
layout of `BertClassifier`. The heads above the encoder are left as they are: their classes differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_TOP_LEVEL_NAMES = {"embeddings.word_embeddings": "embed", "embeddings.LayerNorm": "norm"}
_BLOCK_NAMES = {
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "after_attention",
    "intermediate.dense": "mlp.0",
    "output.dense": "mlp.2",
    "output.LayerNorm": "after_mlp",
}
_JOINED = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
_PARTS = {"gamma": "weight", "beta": "bias"}  # in files of the first years
_POSITIONS, _TYPES = "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"
_COUNTERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def is_bert(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the tensors have the names of BERT's published files."""
    return _POSITIONS in tensors and f"encoder.layer.0.{_JOINED[0]}.weight" in tensors


def from_bert(tensors: Mapping[str, Tensor], context: int, first_position: int) -> dict[str, Tensor]:
    """Return an encoder's weights under this package's names, with `context` positions from `first_position` on.

    Raises:
        ValueError: there are fewer positions, or a part of the attention is missing.
    """
    mapped: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        part = _PARTS.get(part, part)
        block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", layer)
        if name in (_POSITIONS, _TYPES, *_COUNTERS):
            continue
        if block is None:
            own = _TOP_LEVEL_NAMES.get(layer)
            mapped[name if own is None else f"encoder.{own}.{part}"] = tensor
        elif block[2] in _BLOCK_NAMES:
            mapped[f"encoder.blocks.{block[1]}.{_BLOCK_NAMES[block[2]]}.{part}"] = tensor
        elif block[2] == _JOINED[0]:
            names = [f"encoder.layer.{block[1]}.{other}.{part}" for other in _JOINED]
            missing = [other for other in names if other not in tensors]
            if missing:
                raise ValueError(f"there is {name}, but no {missing[0]}")
            mapped[f"encoder.blocks.{block[1]}.qkv.{part}"] = torch.cat([tensors[other] for other in names])
        elif block[2] not in _JOINED:
            mapped[name] = tensor
    positions = tensors[_POSITIONS][first_position : first_position + context]
    if len(positions) < context:
        raise ValueError(f"has {len(positions)} positions, {context} are needed; lower model.context")
    mapped["encoder.positions.weight"] = positions + tensors[_TYPES][0] if _TYPES in tensors else positions
    return mapped
